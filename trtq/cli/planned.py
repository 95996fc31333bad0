"""What `trtq build --dry-run` prints: calls and commands for each TensorRT, or the sentence that says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trtq.cli.options import print_json
from trtq.errors import ConfigError

if TYPE_CHECKING:
    from trtq.pipeline.from_onnx import Request


def dry_run_recipe(path: Path, mode: str, versions: Sequence[str], json: bool) -> None:
    """Print how each TensorRT would build the recipe's modes; exit code 2 where none would."""
    from trtq.config import load_recipe
    from trtq.pipeline import dry_run
    from trtq.pipeline.build import parse_modes

    recipe = load_recipe(path)
    wanted = dry_run.chosen(versions or recipe.engine.tensorrt)
    _print(dry_run.dry_run_recipe(recipe, parse_modes(mode), wanted), json)


def dry_run_onnx(request: Request, versions: Sequence[str], json: bool) -> None:
    """Print how each TensorRT would build the ONNX file; exit code 2 where none would."""
    from trtq.backends import BuildSpec
    from trtq.pipeline import dry_run

    spec = BuildSpec(
        onnx=request.model,
        targets=request.targets,
        mode=request.mode,
        options=request.options,
        calibration_cache=request.calibration_cache,
        calibration_batches=request.calibration if request.implicit else None,
    )
    _print(dry_run.dry_run_onnx(spec, request.folder, dry_run.chosen(versions)), json)


def _print(plans: Sequence[Mapping[str, Any]], json: bool) -> None:
    if json:
        print_json(list(plans))
    else:
        print("\n\n".join("\n".join(_lines(one)) for one in plans))
    if all(one["refused"] is not None for one in plans):
        raise typer.Exit(ConfigError.exit_code)


def _lines(planned: Mapping[str, Any]) -> list[str]:
    title = f"# {planned['product']}" + (f", {planned['mode']}" if planned["mode"] else "")
    if planned["refused"] is not None:
        return [title, f"refused: {planned['refused']}"]
    onnx = planned["onnx"]
    quantizers = f"Q/DQ with {onnx['weights']} weights" if onnx["quantizers"] else "no Q/DQ"
    floats = "floats as written" if onnx["floats"] == "any" else f"floats in {onnx['floats']}"
    return [
        f"{title} ({planned['checked']})",
        f"# wants: opset up to {onnx['opset']}, {quantizers}, {floats}",
        *(f"# note: {note}" for note in planned["notes"]),
        *planned["calls"],
        f"# no command line: {planned['no_command']}" if planned["no_command"] else f"$ {planned['build_command']}",
        f"$ {planned['bench_command']}",
    ]
