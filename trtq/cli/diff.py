"""`trtq diff`: what two engines do differently."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.layers import layer_file
from trtq.cli.options import JsonOption, print_json


def diff(
    a: Annotated[Path, typer.Argument(help="A layer file, or the folder of a built mode.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The one to compare with it.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Align two layer graphs by the ONNX nodes that they compute, and list what differs, dearest first."""
    from trtq.compare import compare
    from trtq.layers import read

    a_graph, b_graph = read(layer_file(a)), read(layer_file(b))
    a_name, b_name = _names(a, b)
    comparison = compare(a_graph, b_graph, a_name, b_name, onnx_a=_onnx_of(a), onnx_b=_onnx_of(b))
    if json:
        print_json(comparison.to_json())
        return
    from rich.console import Console

    from trtq.report.text import differences_table, signals_table

    console = Console()
    console.print(signals_table({a_name: a_graph, b_name: b_graph}))
    if comparison.differences:
        console.print(differences_table(comparison))
    share = f"{100 * comparison.aligned_share:.0f} % of the layers aligned"
    print(f"{len(comparison.differences)} differences; {share}")


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Return how A and B are called: by their own names where these differ, else by their paths."""
    if a.name != b.name:
        return a.name, b.name
    return (str(a), str(b)) if a != b else ("a", "b")


def _onnx_of(path: Path) -> Path | None:
    """Return the ONNX file of a mode's folder: with it, causes are exact."""
    onnx = path / "model.onnx"
    return onnx if onnx.is_file() else None
