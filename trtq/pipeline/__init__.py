"""The composition: from a recipe to engines and a report, resuming where it stopped.

Import its modules by name: `checking` alone is a tenth of what the whole room loads.
"""
