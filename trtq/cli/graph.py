"""`trtq graph`: a picture of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def graph(
    file: Annotated[
        Path,
        typer.Argument(
            help="A layer file, an engine beside its layer file, the folder of a built mode, a recipe, or an ONNX file "
            "to predict.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The SVG file.", show_default=False)],
    title: Annotated[str | None, typer.Option(help="The picture's title. [default: the file]")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="For a recipe: which of its modes. For an ONNX file: how it is predicted, of fp32, fp16, ptq, and qat "
            "where none is given.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Times of the layers: trtexec --exportProfile, or ONNX Runtime's profile.", show_default=False
        ),
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="Draw straight chains of one precision as one card.")] = False,
    regions: Annotated[bool, typer.Option(help="Frame the layers of each module of the network.")] = True,
    only: Annotated[
        str | None,
        typer.Option(
            help="Draw only conversions, double-writes, requantizes, reformats or all that is marked, and what is "
            "next to them.",
            show_default=False,
        ),
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(
            help="Draw only what is around a layer, ONNX node, tensor or module: a name, a part of it, or a pattern.",
            show_default=False,
        ),
    ] = None,
    hops: Annotated[
        int | None,
        typer.Option(min=0, help="How many layers around. [default: 1 for --only, 2 for --around]", show_default=False),
    ] = None,
) -> None:
    """Draw an engine's layers: precision by colour, time or traffic by weight, conversions and double writes marked."""
    from trtq import files
    from trtq.compare.subjects import resolve
    from trtq.errors import ConfigError
    from trtq.report.svg import svg
    from trtq.report.view import View

    if hops is not None and only is None and around is None:
        raise ConfigError("--hops needs --only or --around: the whole engine is drawn")
    view = View(fold, regions, only, around, hops)
    called = " ".join(filter(None, (str(file), mode)))
    files.write_text(output, svg(resolve(file, mode, profile).graph, title or called, view=view))
    print(output)
