"""The stages of each mode, as a plain list; one more stage is one entry, one more mode one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from trtq import backends
from trtq.config import Mode, Recipe
from trtq.pipeline import steps
from trtq.pipeline.child import run_command
from trtq.pipeline.stage import Stage

BuiltMode = Literal["fp32", "fp16", "naive", "ptq", "qat"]
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

    def file(self, name: str, mode: BuiltMode | None = None) -> Path:
        """Return a file of this mode, or of another one."""
        return self.recipe.folder / (mode or self.mode) / name


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a mode in order."""
    return [*SOURCES[plan.mode](plan), *_engines(plan), _accuracy(plan)]


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
    return [
        Stage("convert", (source,), (target,), lambda: steps.to_fp16(source, target), packages=("onnxruntime", "onnx"))
    ]


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
    options = {
        "batch": engine.batch,
        "image_size": plan.recipe.data.image_size,
        "opset": engine.opset,
        "weights": engine.weights,
    }
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
    source, target, layers = plan.file("model.onnx"), plan.file(builder.PLAN_NAME), plan.file("layers.json")
    targets = plan.recipe.engine.targets if builder.HAS_TARGETS else ()
    outputs = (target, layers) if builder.TELLS_LAYERS else (target,)

    def run() -> Mapping[str, Any]:
        return steps.build(builder, source, plan.folder, targets)

    return Stage(f"build-{name}", (source,), outputs, run, {"targets": list(targets)}, (builder.PACKAGE,))


def _accuracy(plan: Plan) -> Stage:
    source, target, recipe = plan.file("model.onnx"), plan.file("accuracy.json"), plan.recipe
    options = {"data": asdict(replace(recipe.data, calibration_images=0, train_images=0)), "seed": recipe.seed}

    def run() -> Mapping[str, Any]:
        return steps.accuracy(recipe, source, target, plan.reporter(f"{plan.mode}: eval"))

    return Stage(
        "eval", (source,), (target,), run, {**options, "threads": recipe.threads}, ("onnxruntime", "pycocotools")
    )
