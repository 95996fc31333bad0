"""`trtq build`: the main command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtq.cli.options import JsonOption, PickleOption, print_json
from trtq.cli.progress import progress_bars, say

if TYPE_CHECKING:
    from trtq.config import Recipe
    from trtq.pipeline.build import Step


def build(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="The recipe (TOML), or an ONNX file to build as it is.", metavar="RECIPE", show_default=False
        ),
    ],
    mode: Annotated[str, typer.Option(help="A list of fp32, fp16, ptq, qat, separated by commas.")] = "fp16,ptq,qat",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="For an ONNX file: the folder of what is built.")
    ] = None,
    backend: Annotated[str, typer.Option(help="For an ONNX file: the back end, rtx or ort.")] = "rtx",
    target: Annotated[
        list[str] | None, typer.Option(help="For an ONNX file: a compute capability. [default: sm86]")
    ] = None,
    json: JsonOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Take a recipe to engines: quantize, calibrate, train, export, unify, build, evaluate, report."""
    if recipe.suffix == ".onnx":
        _build_onnx(recipe, output, backend, tuple(target or ["sm86"]), json)
        return
    from trtq.config import load_recipe
    from trtq.errors import ConfigError

    if output is not None or target:
        raise ConfigError("--output and --target are for an ONNX file; a recipe says both itself")
    _build_recipe(load_recipe(recipe), mode, json, allow_pickle)


def _build_recipe(recipe: Recipe, mode: str, json: bool, allow_pickle: bool) -> None:
    from dataclasses import asdict

    from trtq.pipeline.build import build_recipe, explicit_ptq_note, parse_modes
    from trtq.pipeline.result import result_rows, write_report

    modes = parse_modes(mode)
    note = explicit_ptq_note(recipe, modes)
    if note is not None:
        say(f"note: {note}")
    with progress_bars() as bars:
        built, ran = build_recipe(recipe, modes, reporter=bars, on_step=_say_step, allow_pickle=allow_pickle)
    page, notes = write_report(recipe)
    for note in notes:
        say(f"  note: {note}")
    rows = result_rows(recipe)
    if json:
        modes_json = {row.mode: asdict(row) for row in rows}
        print_json({"recipe": recipe.name, "built": built, "stages_run": ran, "report": str(page), "modes": modes_json})
        return
    from rich.console import Console

    from trtq.report.text import modes_table

    Console().print(modes_table(rows))
    print("all is up to date" if not ran else f"{ran} stages run")
    print(f"report: {page}")


def _say_step(step: Step) -> None:
    say(f"[{step.number:>2}/{step.total}] {step.mode} {step.stage}")


def _build_onnx(model: Path, output: Path | None, backend: str, targets: tuple[str, ...], json: bool) -> None:
    from trtq.pipeline.build import build_onnx

    folder = output or model.with_suffix("")
    facts = build_onnx(model, folder, backend, targets)
    if json:
        print_json(facts)
    else:
        about = ", ".join([f"{facts['backend']} {facts['version']}", *facts["targets"]])
        print(f"{folder / facts['plan']}: {facts['plan_bytes'] / 1e6:.2f} MB, {about}")
