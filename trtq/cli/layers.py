"""`trtq layers`: an engine's layers and their signals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, print_json


def layers(
    files: Annotated[
        list[Path],
        typer.Argument(help="Layer files, engine logs, or folders that hold a layers.json.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the (only) file as layers.json.", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Times of the (only) file's layers: trtexec --exportProfile, or ONNX Runtime's profile.",
            show_default=False,
        ),
    ] = None,
    optimization_profile: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Which optimization profile, of an engine with several. [default: the lowest]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read engines' layer tables and print the signals that tell how well quantizers are placed."""
    from dataclasses import asdict

    from trtq.errors import ConfigError
    from trtq.layers import read

    for option, value in (("--output", output), ("--profile", profile)):
        if value is not None and len(files) > 1:
            raise ConfigError(f"{option} takes one file; convert one after the other")
    graphs = {str(path): read(layer_file(path), profile, optimization_profile) for path in files}
    if output is not None:
        next(iter(graphs.values())).save(output)
    for name, graph in graphs.items():
        for note in graph.notes:
            print(f"{name}: {note}", file=sys.stderr)
    if json:
        rows = [{"file": name, "origin": graph.origin, **asdict(graph.signals)} for name, graph in graphs.items()]
        print_json(rows if len(rows) > 1 else rows[0])
        return
    from rich.console import Console

    from trtq.report.text import signals_table

    Console().print(signals_table(graphs))


def layer_file(path: Path) -> Path:
    """Return the layer file that `path` stands for: itself, or the layers.json of a mode's folder."""
    return path / "layers.json" if path.is_dir() else path
