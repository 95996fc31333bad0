"""`trtq diff`: what two engines do differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import say

if TYPE_CHECKING:
    from trtq.compare import Comparison
    from trtq.compare.subjects import Subject

MODED = (".toml", ".onnx")


def diff(
    a: Annotated[
        Path,
        typer.Argument(
            help="A layer file, an engine beside its layer file, the folder of a built mode, a recipe, or an ONNX file "
            "to predict.",
            show_default=False,
        ),
    ],
    b: Annotated[
        Path | None,
        typer.Argument(help="The one to compare with it. [default: A, in another mode]", show_default=False),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="For recipes: which mode of A and of B, as in fp16,qat. For ONNX files: how they are predicted, of "
            "fp32, fp16, ptq, qat. [default: qat,qat]",
            show_default=False,
        ),
    ] = None,
    profile_a: Annotated[
        Path | None,
        typer.Option(
            help="Times of A's layers: trtexec --exportProfile, or ONNX Runtime's profile.", show_default=False
        ),
    ] = None,
    profile_b: Annotated[Path | None, typer.Option(help="Times of B's layers.", show_default=False)] = None,
    times_a: Annotated[
        Path | None,
        typer.Option(
            help="Times of A's queries, trtexec --exportTimes: what the engine takes unprofiled.", show_default=False
        ),
    ] = None,
    times_b: Annotated[Path | None, typer.Option(help="Times of B's queries.", show_default=False)] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit code 1 where B's signals are so, as in conversions>0,int8_share<0.95.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Align two layer graphs by the ONNX nodes that they compute, and list what differs, dearest first."""
    from trtq.compare import compare, gates
    from trtq.compare.subjects import resolve

    other = _other(a, b, mode)
    a_mode, b_mode = _modes(mode, a, other)
    wanted = () if fail_on is None else gates.parse(fail_on)
    first, second = resolve(a, a_mode, profile_a), resolve(other, b_mode, profile_b)
    a_name, b_name = _names(first, second, (a, other), (a_mode, b_mode))
    engine_us = _engine_us(times_a, times_b)
    comparison = compare(
        first.graph, second.graph, a_name, b_name, onnx_a=first.onnx, onnx_b=second.onnx, engine_us=engine_us
    )
    failed = gates.failures(second.graph, b_name, wanted)
    if json:
        origins = {"a": first.graph.origin, "b": second.graph.origin}
        print_json({**comparison.to_json(), "origins": origins, "failed": list(failed)})
    else:
        _print(first, second, comparison)
    for sentence in failed:
        say(sentence)
    raise typer.Exit(1 if failed else 0)


def _print(first: Subject, second: Subject, comparison: Comparison) -> None:
    from rich.console import Console

    from trtq.report.text import differences_table, signals_table

    console = Console()
    console.print(signals_table({comparison.a: first.graph, comparison.b: second.graph}))
    for name, one in ((comparison.a, first), (comparison.b, second)):
        print(f"{name}: {one.graph.origin}, {one.graph.source}")
    if comparison.differences:
        console.print(differences_table(comparison))
    else:
        print("\n".join(comparison.notes))
    share = f"{100 * comparison.aligned_share:.0f} % of the layers aligned"
    print(f"{len(comparison.differences)} differences; {share}")


def _other(a: Path, b: Path | None, mode: str | None) -> Path:
    """Return B, which is A in another mode where it is not given; raises `ConfigError` where A has no modes."""
    from trtq.errors import ConfigError

    if b is not None:
        return b
    if a.suffix not in MODED:
        raise ConfigError(f"{a}: give a second one to compare it with")
    if mode is None:
        raise ConfigError(f"{a}: give a second one to compare it with, or two modes of it, as in --mode ptq,qat")
    return a


def _modes(text: str | None, a: Path, b: Path) -> tuple[str | None, str | None]:
    """Return the modes of A and of B; raises `ConfigError` where they are not two, or mean nothing."""
    from trtq.compare.subjects import RECIPE_MODES
    from trtq.errors import ConfigError

    if text is None:
        return None, None
    words = [word.strip() for word in text.split(",")]
    if len(words) != 2 or not set(words) <= set(RECIPE_MODES):
        raise ConfigError(f"mode '{text}' must be two of {', '.join(RECIPE_MODES)}, for A and for B, as in ptq,qat")
    if a.suffix not in MODED and b.suffix not in MODED:
        raise ConfigError("--mode is for recipes and ONNX files, and neither A nor B is one")
    return words[0], words[1]


def _engine_us(times_a: Path | None, times_b: Path | None) -> tuple[float, float] | None:
    """Return the mean time of a query in A and in B; raises `ConfigError` where only one is given, `ModelError`."""
    from statistics import fmean

    from trtq.errors import ConfigError
    from trtq.layers.trtexec_times import read_times

    if times_a is None and times_b is None:
        return None
    if times_a is None or times_b is None:
        raise ConfigError("--times-a and --times-b belong together; give the times of both engines")
    return fmean(read_times(times_a).compute_us), fmean(read_times(times_b).compute_us)


def _names(
    first: Subject, second: Subject, paths: tuple[Path, Path], modes: tuple[str | None, str | None]
) -> tuple[str, str]:
    """Return how A and B are called: by their own names where these differ, else by their paths, else by their mode."""
    if first.name != second.name:
        return first.name, second.name
    if paths[0] != paths[1]:
        return str(paths[0]), str(paths[1])
    if modes[0] != modes[1]:
        return f"{first.name} {modes[0]}", f"{second.name} {modes[1]}"
    return f"{first.name} (A)", f"{second.name} (B)"
