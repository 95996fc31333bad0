"""Options that several commands share, spelled once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe: a TOML file.", metavar="RECIPE", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]
PickleOption = Annotated[
    bool, typer.Option("--allow-pickle", help="Read a pickled checkpoint; it can run any code, so only your own.")
]


def print_json(value: Any) -> None:
    """Print `value` as JSON, keys sorted."""
    print(json.dumps(value, indent=1, sort_keys=True))
