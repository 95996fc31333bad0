"""The stages of each mode, as a plain list; one more stage is one entry, one more mode one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from trtq import backends
from trtq.backends import BuildOptions, BuildSpec, manifest
from trtq.config import Mode, Recipe
from trtq.pipeline import calibration, engine, steps
from trtq.pipeline.child import run_command
from trtq.pipeline.stage import Stage

BuiltMode = Literal["fp32", "fp16", "naive", "ptq", "qat"]
NATIVE, NATIVE_ACCURACY = "ort-native", "accuracy.ort-native.json"
TORCH_PACKAGES = ("torch", "torchvision", "pytorch-quantization", "onnx", "onnx-ir", "numpy")


class Reporter(Protocol):
    """Shows how long work goes on: a bar for people, lines for logs."""

    def __call__(self, label: str, /) -> Callable[[int, int], None]:
        """Start a task and return what is to be called with its done and total."""


@dataclass(frozen=True)
class Plan:
    """Where one mode's files are and what builds them."""

    recipe: Recipe
    mode: BuiltMode
    reporter: Reporter
    allow_pickle: bool = False

    @property
    def folder(self) -> Path:
        """The mode's own folder."""
        return self.recipe.folder / self.mode

    @property
    def casts(self) -> bool:
        """Whether what this mode leaves unquantized becomes FP16."""
        return self.mode not in ("fp32", "fp16") and self.recipe.engine.float_type == "fp16"

    @property
    def built(self) -> Path:
        """The file that engines are built of."""
        return self.file("model.fp16.onnx" if self.casts else "model.onnx")

    def file(self, name: str, mode: BuiltMode | None = None) -> Path:
        """Return a file of this mode, or of another one."""
        return self.recipe.folder / (mode or self.mode) / name


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a mode in order."""
    return [*SOURCES[plan.mode](plan), *_cast(plan), *_engines(plan), _accuracy(plan), *_native_accuracy(plan)]


def needed(modes: Iterable[Mode]) -> list[BuiltMode]:
    """Return the modes to build, in order: those asked for and those that they build on or are compared with.

    Every mode is compared with fp32; ptq with the naive placement of the same quantizers; qat starts from ptq.
    """
    asked = set(modes)
    wanted: set[BuiltMode] = {"fp32", *asked}
    if asked & {"ptq", "qat"}:
        wanted |= {"naive", "ptq"}
    return [mode for mode in SOURCES if mode in wanted]


def _fp32(plan: Plan) -> list[Stage]:
    return [_export(plan, None, plan.file("model.onnx"))]


def _fp16(plan: Plan) -> list[Stage]:
    source, target = plan.file("model.onnx", "fp32"), plan.file("model.onnx")
    return [Stage("convert", (source,), (target,), lambda: steps.to_fp16(source, target), packages=("onnx", "onnx-ir"))]


def _naive(plan: Plan) -> list[Stage]:
    checkpoint = plan.file("quantized.safetensors")
    model, groups = plan.file("model.onnx"), plan.file("groups.json")
    return [
        _quantize(plan, checkpoint),
        _export(plan, checkpoint, model),
        Stage("groups", (model,), (groups,), lambda: steps.scale_groups(model, groups), packages=("onnx-ir",)),
        _predict(plan),
    ]


def _ptq(plan: Plan) -> list[Stage]:
    checkpoint = plan.file("quantized.safetensors")
    return [_quantize(plan, checkpoint), *_placed(plan, checkpoint)]


def _qat(plan: Plan) -> list[Stage]:
    checkpoint = plan.file("quantized.safetensors")
    return [_finetune(plan, plan.file("quantized.safetensors", "ptq"), checkpoint), *_placed(plan, checkpoint)]


SOURCES: dict[BuiltMode, Callable[[Plan], list[Stage]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "naive": _naive,
    "ptq": _ptq,
    "qat": _qat,
}


def _cast(plan: Plan) -> list[Stage]:
    if not plan.casts:
        return []
    source, target, per_tensor = plan.file("model.onnx"), plan.built, plan.recipe.engine.per_tensor_weights

    def run() -> Mapping[str, Any]:
        return steps.to_fp16(source, target, per_tensor_weights=per_tensor)

    return [Stage("cast", (source,), (target,), run, {"per_tensor_weights": per_tensor}, ("onnx", "onnx-ir"))]


def _placed(plan: Plan, checkpoint: Path) -> list[Stage]:
    exported, unified, model = plan.file("exported.onnx"), plan.file("unified.onnx"), plan.file("model.onnx")
    groups, findings = plan.file("groups.json"), plan.file("lint.json")
    packages = ("onnx", "onnx-ir")
    return [
        _export(plan, checkpoint, exported),
        Stage(
            "unify", (exported,), (unified, groups), lambda: steps.unify(exported, unified, groups), packages=packages
        ),
        Stage("lint", (unified,), (model, findings), lambda: steps.lint(unified, model, findings), packages=packages),
        _predict(plan),
    ]


def _predict(plan: Plan) -> Stage:
    source, target = plan.file("model.onnx"), plan.file("predicted.json")
    return Stage("predict", (source,), (target,), lambda: steps.predict_fusion(source, target), packages=("onnx-ir",))


def _quantize(plan: Plan, target: Path) -> Stage:
    recipe = plan.recipe
    return _torch_stage(
        plan,
        "quantize",
        (),
        target,
        {"data": asdict(recipe.data), "quantization": asdict(recipe.quantization), "opset": recipe.engine.opset},
    )


def _finetune(plan: Plan, source: Path, target: Path) -> Stage:
    recipe = plan.recipe
    return _torch_stage(
        plan, "finetune", (source,), target, {"data": asdict(recipe.data), "finetune": asdict(recipe.finetune)}
    )


def _export(plan: Plan, checkpoint: Path | None, target: Path) -> Stage:
    engine = plan.recipe.engine
    options: dict[str, Any] = {
        "batch": engine.batch,
        "image_size": plan.recipe.data.image_size,
        "opset": engine.opset,
        "weights": engine.weights,
    }
    if engine.dynamic_batch:
        options["dynamic_batch"] = True
    return _torch_stage(plan, "export", () if checkpoint is None else (checkpoint,), target, options)


def _torch_stage(plan: Plan, name: str, inputs: tuple[Path, ...], target: Path, options: Mapping[str, Any]) -> Stage:
    recipe = plan.recipe
    arguments = [name, str(recipe.path), "--output", str(target), "--json"]
    if name != "finetune":
        arguments += ["--mode", plan.mode]
    if inputs:
        arguments += ["--from", str(inputs[0])]
    if plan.allow_pickle:
        arguments.append("--allow-pickle")

    def run() -> Mapping[str, Any]:
        return run_command(arguments, threads=recipe.threads)

    checkpoint = () if recipe.checkpoint is None else (recipe.checkpoint,)
    common = {"model": asdict(recipe.model), "seed": recipe.seed, "threads": recipe.threads}
    return Stage(name, (*checkpoint, *inputs), (target,), run, {**common, **options}, TORCH_PACKAGES)


def _engines(plan: Plan) -> list[Stage]:
    return [_engine(plan, backend) for backend in plan.recipe.engine.backends]


def _engine(plan: Plan, name: str) -> Stage:
    builder = backends.builder(name)
    implicit = plan.mode == "ptq" and plan.recipe.engine.ptq == "implicit" and builder.HAS_IMPLICIT_PTQ
    source = _source(plan, name, implicit=implicit)
    target, layers = plan.file(builder.PLAN_NAME), plan.file(engine.LAYERS_NAME)
    targets = plan.recipe.engine.targets if builder.HAS_TARGETS else ()
    outputs = (target, manifest.path_of(target), *((layers,) if builder.TELLS_LAYERS else ()))
    # The naive placement is ptq's own quantizers, untied.
    mode: Mode = "ptq" if plan.mode == "naive" else plan.mode
    options: dict[str, Any] = {"targets": list(targets)}
    build_options = engine.engine_options(plan.recipe)
    if engine.options_json(build_options) != engine.options_json(BuildOptions()):
        options |= {"build": engine.options_json(build_options)}
    calibrated = implicit or calibration.wanted(name, mode)
    if calibrated:
        used = replace(plan.recipe.data, train_images=0, validation_images=0)
        options |= {"data": asdict(used), "seed": plan.recipe.seed}

    def run() -> Mapping[str, Any]:
        images = calibration.images(plan.recipe) if calibrated else None
        with calibration.saved(images, plan.recipe.engine.batch) as batches:
            spec = BuildSpec(source, targets, mode, build_options, calibration_batches=batches)
            return engine.build_engine(builder, spec, plan.folder, recipe=plan.recipe.path)

    return Stage(f"build-{name}", (source,), outputs, run, options, (builder.PACKAGE,))


def _source(plan: Plan, backend: str, *, implicit: bool) -> Path:
    """Return the file that a back end builds a mode from."""
    if implicit:
        return plan.file("model.onnx", "fp32")
    # ONNX Runtime's integer kernels want float32 beside the pairs.
    return plan.file("model.onnx") if backend == NATIVE else plan.built


def _accuracy(plan: Plan) -> Stage:
    return _eval(plan, "eval", plan.built, plan.file("accuracy.json"), steps.ACCURACY_RUNNER)


def _native_accuracy(plan: Plan) -> list[Stage]:
    """Measure what ONNX Runtime's native form computes, where it is another network than the file as exported."""
    if NATIVE not in plan.recipe.engine.backends or plan.mode not in ("naive", "ptq", "qat"):
        return []
    source, target = plan.file(backends.builder(NATIVE).PLAN_NAME), plan.file(NATIVE_ACCURACY)
    return [_eval(plan, f"eval-{NATIVE}", source, target, NATIVE)]


def _eval(plan: Plan, name: str, source: Path, target: Path, runner: str) -> Stage:
    recipe = plan.recipe
    options = {"data": asdict(replace(recipe.data, calibration_images=0, train_images=0)), "seed": recipe.seed}

    def run() -> Mapping[str, Any]:
        return steps.accuracy(recipe, source, target, plan.reporter(f"{plan.mode}: {name}"), runner=runner)

    return Stage(
        name, (source,), (target,), run, {**options, "threads": recipe.threads}, ("onnxruntime", "pycocotools")
    )
