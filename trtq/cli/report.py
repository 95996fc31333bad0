"""`trtq report`: one HTML page a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import RecipeArgument
from trtq.cli.progress import say


def report(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file. [default: in the recipe's folder]")
    ] = None,
) -> None:
    """Write the report of what a recipe has built: accuracy, engines, where they differ and why."""
    from trtq.config import load_recipe
    from trtq.pipeline.result import write_report

    path, notes = write_report(load_recipe(recipe), output)
    for note in notes:
        say(f"  note: {note}")
    print(path)
