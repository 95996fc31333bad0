"""Reports: data types in, strings out; tables for terminals, SVG pictures, one HTML page a recipe."""
