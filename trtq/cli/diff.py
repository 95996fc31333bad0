"""`trtq diff`: what two engines do differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import say

if TYPE_CHECKING:
    from trtq.compare import Comparison
    from trtq.layers.graph import LayerGraph
    from trtq.predict import Mode


def diff(
    a: Annotated[
        Path, typer.Argument(help="A layer file, the folder of a built mode, or an ONNX file.", show_default=False)
    ],
    b: Annotated[Path, typer.Argument(help="The one to compare with it.", show_default=False)],
    mode: Annotated[
        str, typer.Option(help="For ONNX files: how A and B are predicted, of fp32, fp16, ptq, qat.")
    ] = "qat,qat",
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit code 1 where B's signals are so, as in conversions>0,int8_share<0.95.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Align two layer graphs by the ONNX nodes that they compute, and list what differs, dearest first."""
    from trtq.compare import compare, gates, subject

    a_mode, b_mode = _modes(mode)
    wanted = () if fail_on is None else gates.parse(fail_on)
    a_graph, b_graph = subject(a, a_mode), subject(b, b_mode)
    a_name, b_name = _names(a, b, mode)
    comparison = compare(a_graph, b_graph, a_name, b_name, onnx_a=_onnx_of(a), onnx_b=_onnx_of(b))
    failed = gates.failures(b_graph, b_name, wanted)
    if json:
        print_json({**comparison.to_json(), "failed": list(failed)})
    else:
        _print(a_graph, b_graph, comparison)
    for sentence in failed:
        say(sentence)
    raise typer.Exit(1 if failed else 0)


def _print(a_graph: LayerGraph, b_graph: LayerGraph, comparison: Comparison) -> None:
    from rich.console import Console

    from trtq.report.text import differences_table, signals_table

    console = Console()
    console.print(signals_table({comparison.a: a_graph, comparison.b: b_graph}))
    if comparison.differences:
        console.print(differences_table(comparison))
    share = f"{100 * comparison.aligned_share:.0f} % of the layers aligned"
    print(f"{len(comparison.differences)} differences; {share}")


def _modes(text: str) -> tuple[Mode, Mode]:
    """Return how A and B are predicted; raises `ConfigError`."""
    from trtq.config import MODES
    from trtq.errors import ConfigError

    words = [word.strip() for word in text.split(",")]
    if len(words) != 2 or not set(words) <= set(MODES):
        raise ConfigError(f"mode '{text}' must be two of {', '.join(MODES)}, for A and for B, as in ptq,qat")
    a, b = (cast("Mode", "explicit" if word == "qat" else word) for word in words)
    return a, b


def _names(a: Path, b: Path, mode: str) -> tuple[str, str]:
    """Return how A and B are called: by their own names where these differ, else by their paths, else by their mode."""
    if a.name != b.name:
        return a.name, b.name
    first, _, second = mode.partition(",")
    return (str(a), str(b)) if a != b else (f"{a.name} {first.strip()}", f"{b.name} {second.strip()}")


def _onnx_of(path: Path) -> Path | None:
    """Return the ONNX file of a mode's folder, or the file itself: with it, causes are exact."""
    onnx = path if path.suffix == ".onnx" else path / "model.onnx"
    return onnx if onnx.is_file() else None
