"""`trtq build`: the main command."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

from trtq.cli import planned
from trtq.cli.options import JsonOption, PickleOption, print_json
from trtq.cli.progress import phases, progress_bars, say

if TYPE_CHECKING:
    from trtq.config import Recipe
    from trtq.pipeline.build import Step
    from trtq.pipeline.from_onnx import Request

TIMEOUT_S = 3600.0
Word = TypeVar("Word", bound=str)


def build(
    recipe: Annotated[
        Path,
        typer.Argument(help="The recipe (TOML), or an ONNX file.", metavar="RECIPE", show_default=False),
    ],
    mode: Annotated[
        str | None,
        typer.Option(
            help="A list of fp32, fp16, ptq, qat, separated by commas; for an ONNX file one of them. "
            "[default: fp16,ptq,qat; an ONNX file as it is]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="For an ONNX file: the folder of what is built.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="For an ONNX file: the back end. [default: auto]", show_default=False)
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="For an ONNX file: a compute capability. [default: sm86]")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="For --mode ptq of a float ONNX file, or back end ort-native: pictures, an .npy file or a recipe.",
            metavar="IMAGES",
        ),
    ] = None,
    calibrator: Annotated[
        str | None, typer.Option(help="For --calibration: entropy, max, mse or percentile. [default: mse]")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="For --calibration: a glob over node names that stay float.", metavar="GLOB"),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="For an ONNX file: mend what preflight would refuse.")] = False,
    half: Annotated[bool, typer.Option("--half", help="For an ONNX file: what is not quantized in FP16.")] = False,
    implicit: Annotated[
        bool,
        typer.Option("--implicit", help="For --mode ptq of a float ONNX file: TensorRT's own calibration, up to 10.x."),
    ] = False,
    calibration_cache: Annotated[
        Path | None,
        typer.Option(help="For --mode ptq of a float ONNX file: ranges in TensorRT's text.", metavar="FILE"),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(help="For an ONNX file: INPUT=SMALLEST,USUAL,LARGEST; again for another profile.", metavar="SPEC"),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="For an ONNX file: the most scratch memory of a layer.", metavar="MIB")
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="For an ONNX file: TensorRT's builder optimization level, 0 to 5.", metavar="N")
    ] = None,
    strongly_typed: Annotated[
        bool, typer.Option("--strongly-typed", help="For an ONNX file: types as written; TensorRT 11 knows no other.")
    ] = False,
    dla_core: Annotated[
        int | None, typer.Option(help="For an ONNX file: a DLA core, with the GPU for the rest.", metavar="N")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="For an ONNX file: TensorRT's timings, read and written.", metavar="FILE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the API calls and the trtexec commands, and build nothing.")
    ] = False,
    tensorrt: Annotated[
        list[str] | None,
        typer.Option(help="For --dry-run: a version such as 8.6, or rtx. [default: all]", metavar="VERSION"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="For an ONNX file: the most seconds that a build may take. [default: 3600]", metavar="S"),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(help="For an ONNX file: the most memory that it may take. [default: what is free]", metavar="MIB"),
    ] = None,
    json: JsonOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Take a recipe to engines: quantize, calibrate, train, export, unify, build, evaluate, report."""
    from trtq.config import MODES, Calibrator, load_recipe
    from trtq.errors import ConfigError

    given = {
        "--output": output, "--backend": backend, "--target": target, "--calibration": calibration,
        "--calibrator": calibrator, "--exclude": exclude, "--fix": fix, "--half": half, "--timeout": timeout,
        "--memory-limit": memory_limit, "--implicit": implicit, "--calibration-cache": calibration_cache,
        "--shapes": shapes, "--workspace": workspace, "--level": level is not None, "--strongly-typed": strongly_typed,
        "--dla-core": dla_core is not None, "--timing-cache": timing_cache,
    }  # fmt: skip
    if tensorrt and not dry_run:
        raise ConfigError("--tensorrt is for --dry-run; a build takes the TensorRT that is installed")
    if recipe.suffix.lower() != ".onnx":
        for name, value in given.items():
            if value:
                raise ConfigError(f"{name} is for an ONNX file; a recipe says what it builds and how")
        if dry_run:
            planned.dry_run_recipe(recipe, mode or "fp32,fp16,ptq,qat", tensorrt or (), json)
            return
        _build_recipe(load_recipe(recipe), mode or "fp16,ptq,qat", json, allow_pickle)
        return
    from trtq.backends import BuildOptions
    from trtq.backends.shapes import parse_profile
    from trtq.pipeline.from_onnx import Request

    request = Request(
        model=recipe,
        folder=output or recipe.with_suffix(""),
        backend=backend or "auto",
        mode=None if mode is None else _one_of(mode, MODES, "mode"),
        targets=tuple(target or ()),
        calibration=calibration,
        calibrator=_one_of(calibrator or "mse", get_args(Calibrator), "calibrator"),
        exclude=tuple(exclude or ()),
        fix=fix,
        half=half,
        implicit=implicit,
        calibration_cache=calibration_cache,
        options=BuildOptions(
            profiles=tuple(map(parse_profile, shapes or ())),
            workspace_mib=workspace,
            level=level,
            timing_cache=timing_cache,
            dla_core=dla_core,
            strongly_typed=strongly_typed,
            timeout_s=TIMEOUT_S if timeout is None else timeout,
            memory_limit_mib=memory_limit,
        ),
    )
    if dry_run:
        planned.dry_run_onnx(request, tensorrt or (), json)
    else:
        _build_onnx(request, json)


def _build_recipe(recipe: Recipe, mode: str, json: bool, allow_pickle: bool) -> None:
    from dataclasses import asdict

    from trtq.pipeline.build import build_recipe, explicit_ptq_note, parse_modes
    from trtq.pipeline.result import result_rows, write_report

    modes = parse_modes(mode)
    note = explicit_ptq_note(recipe, modes)
    if note is not None:
        say(f"note: {note}")
    with progress_bars() as bars:
        built, ran = build_recipe(
            recipe, modes, reporter=bars, on_step=_say_step, waiting=_say_waiting, allow_pickle=allow_pickle
        )
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


def _say_waiting() -> None:
    say("  another build of this is running; waiting for it")


def _one_of(word: str, known: Iterable[Word], what: str) -> Word:
    from trtq.config import did_you_mean
    from trtq.errors import ConfigError

    words = tuple(known)
    for one in words:
        if one == word:
            return one
    raise ConfigError(f"{what} '{word}' is not known{did_you_mean(word, words) or '; known are ' + ', '.join(words)}")


def _build_onnx(request: Request, json: bool) -> None:
    from trtq.pipeline.from_onnx import build_onnx

    with progress_bars() as bars:
        built = build_onnx(request, progress=phases(bars), calibrating=bars("calibrate"), waiting=_say_waiting)
    if built.because is not None:
        say(f"  {' + '.join(facts['backend'] for facts in built.engines)}: {built.because}")
    for facts in built.engines:
        for note in facts["notes"]:
            say(f"  note: {note}")
    if json:
        print_json({"because": built.because, "engines": list(built.engines)})
        return
    for facts in built.engines:
        about = ", ".join([f"{facts['backend']} {facts['version']}", *facts["targets"]])
        state = f"built in {facts['build_s']:.1f} s" if facts["built"] else "is up to date"
        print(f"{request.folder / facts['plan']}: {facts['plan_bytes'] / 1e6:.2f} MB, {about}, {state}")
