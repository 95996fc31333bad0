"""A dry run: what would be done for a TensorRT that may not be here, as calls and as a command, without building."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtq import backends
from trtq.backends import BuildSpec, building, command, dialects, onnx_file, planner, trt, trtexec
from trtq.backends.dialects import Dialect
from trtq.backends.form import OnnxForm, form_of, misfit
from trtq.backends.planner import BuildPlan
from trtq.config import EngineSpec, Mode, Recipe
from trtq.errors import ConfigError, ModelError
from trtq.pipeline.engine import engine_options

Planned = Mapping[str, Any]
# What a recipe's ONNX file is called in a mode's folder.
ONNX_NAME = "model.onnx"
TARGETS = ("sm86",)
# The back ends whose builds are planned, and what there says what TensorRT it is.
VERSIONED: Mapping[str, Callable[[], Dialect]] = {
    "trt": trt.dialect,
    "trtexec": trtexec.dialect,
    "rtx": lambda: dialects.DIALECTS["rtx"],
}


def chosen(names: Sequence[str]) -> tuple[Dialect, ...]:
    """Return the dialects of these names, every recorded one where none is named; raises `ConfigError`."""
    return tuple(map(dialects.named, names)) if names else tuple(dialects.DIALECTS.values())


def dry_run_onnx(spec: BuildSpec, folder: Path, wanted: Iterable[Dialect]) -> list[Planned]:
    """Return how each dialect would build an ONNX file into `folder`, or why it would not.

    Copies that a build makes first, quantized or in FP16, are named and not made; calibration batches are not read.
    Raises `ModelError` for a broken file.
    """
    form = form_of(onnx_file.check(spec.onnx))
    found = []
    for dialect in wanted:
        targeted = replace(spec, targets=(spec.targets or TARGETS) if dialect.ahead_of_time else ())
        try:
            found.append(_told(_plan(targeted, form, folder, dialect), folder))
        except ConfigError as error:
            found.append(_refused(dialect, spec.mode, error))
        except ModelError as error:
            if not isinstance(error, building.FormError):
                raise
            found.append(_refused(dialect, spec.mode, error))
    return found


def _plan(spec: BuildSpec, form: OnnxForm, folder: Path, dialect: Dialect) -> BuildPlan:
    calibrated = spec.calibration_cache is not None or spec.calibration_batches is not None
    if spec.mode == "ptq" and not form.quantizers and not calibrated:
        return planner.plan(replace(spec, onnx=_copy(spec, folder, "ptq")), dialect, quantized=True)
    in_file = spec.options.strongly_typed or not dialect.weakly_typed
    if spec.mode == "fp16" and not form.quantizers and form.floats == "float32" and in_file:
        return planner.plan(replace(spec, onnx=_copy(spec, folder, "fp16")), dialect, quantized=False)
    return building.plan_for(spec, dialect, read_batches=False)


def _copy(spec: BuildSpec, folder: Path, kind: str) -> Path:
    return folder / f"{spec.onnx.stem}.{kind}.onnx"


def dry_run_recipe(recipe: Recipe, modes: Iterable[Mode], wanted: Iterable[Dialect]) -> list[Planned]:
    """Return how each dialect would build each mode of a recipe, or why it would not; exports and trains nothing."""
    modes = tuple(modes)
    return [_mode_of(recipe, mode, dialect) for dialect in wanted for mode in modes]


def check_recipe_backends(recipe: Recipe, modes: Sequence[Mode]) -> None:
    """Check, before anything is trained or built, that the recipe's TensorRTs take what it will export.

    Those are the versions that it names (`engine.tensorrt`) and the back ends that it builds with. Raises
    `ConfigError`, and `MissingBackendError` where such a back end is not installed.
    """
    tell = [name for name in recipe.engine.backends if backends.builder(name).TELLS_LAYERS]
    if len(tell) > 1:
        raise ConfigError(f"{recipe.path}: {' and '.join(tell)} both write layers.json; give each a recipe of its own")
    named = [dialects.named(name) for name in recipe.engine.tensorrt]
    for dialect in (*named, *(VERSIONED[name]() for name in recipe.engine.backends if name in VERSIONED)):
        for mode in modes:
            check_recipe(recipe, dialect, mode)


def check_recipe(recipe: Recipe, dialect: Dialect, mode: Mode) -> BuildPlan:
    """Return how `dialect` would build a mode of a recipe; raises `ConfigError` where the recipe asks for another form.

    The file that the recipe exports is known before it is there: its opset, its weights, and what its mode makes it.
    """
    engine = recipe.engine
    implicit = mode == "ptq" and engine.ptq == "implicit" and dialect.has("IBuilderConfig.int8_calibrator")
    quantized = mode in ("ptq", "qat") and not implicit
    folder = recipe.folder / ("fp32" if implicit else mode)
    spec = BuildSpec(
        onnx=folder / ONNX_NAME,
        targets=engine.targets if dialect.ahead_of_time else (),
        mode=mode,
        options=engine_options(recipe),
        calibration_batches=folder if implicit else None,
    )
    planned = planner.plan(spec, dialect, quantized=quantized)
    complaint = misfit(planned.form, _exported(engine, mode, quantized), dialect.product)
    if complaint is not None:
        raise ConfigError(f"{recipe.path}: {mode} cannot go to {dialect.product}: of its ONNX file, {complaint}")
    return planned


def _mode_of(recipe: Recipe, mode: Mode, dialect: Dialect) -> Planned:
    try:
        return _told(check_recipe(recipe, dialect, mode), recipe.folder / mode)
    except ConfigError as error:
        return _refused(dialect, mode, error)


def _exported(engine: EngineSpec, mode: Mode, quantized: bool) -> OnnxForm:
    return OnnxForm(
        opset=engine.opset,
        quantizers=quantized,
        weights=engine.weights if quantized else "float",
        floats="float16" if mode == "fp16" or (quantized and engine.float_type == "fp16") else "float32",
    )


def _told(planned: BuildPlan, folder: Path) -> Planned:
    engine = folder / trtexec.PLAN_NAME
    bench = command.bench_command(planned.dialect, engine, next(iter(planned.spec.options.profiles), ()))
    told: dict[str, Any] = {**planned.to_json(), "refused": None, "bench_command": command.text(bench)}
    try:
        return {**told, "build_command": command.text(command.build_command(planned, engine)), "no_command": None}
    except ConfigError as error:
        return {**told, "build_command": None, "no_command": str(error)}


def _refused(dialect: Dialect, mode: Mode | None, error: Exception) -> Planned:
    return {"tensorrt": dialect.name, "product": dialect.product, "mode": mode, "refused": str(error)}
