"""`trtq graph`: a picture of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.layers import layer_file


def graph(
    file: Annotated[Path, typer.Argument(help="A layer file, or the folder of a built mode.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The SVG file.", show_default=False)],
    title: Annotated[str | None, typer.Option(help="The picture's title. [default: the file]")] = None,
) -> None:
    """Draw an engine's layers: precision by colour, traffic by weight, double writes marked."""
    from trtq import files
    from trtq.layers import read
    from trtq.report.svg import svg

    files.write_text(output, svg(read(layer_file(file)), title or str(file)))
    print(output)
