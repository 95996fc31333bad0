"""Recipes: one TOML file says which network, which data, how to quantize and for which engines.

The text below a key is its meaning in docs/reference/recipe.md, in Markdown, links relative to docs/.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trtq.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Mode = Literal["fp32", "fp16", "ptq", "qat"]
MODES: tuple[Mode, ...] = ("fp32", "fp16", "ptq", "qat")
Calibrator = Literal["max", "percentile", "mse", "entropy"]


@dataclass(frozen=True)
class ModelSpec:
    """Which network, and its weights."""

    name: str
    """`yolov7-tiny`, `yolov7`, `mobilenet_v2`, `resnet18`, `resnet50`, or [your own](own-network.md) as
    `package.module:callable`.
    """
    checkpoint: str | None = None
    """The float weights, a safetensors file, relative to the recipe. Without one the network keeps its random weights:
    good for trying, not for accuracy.
    """
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network's constructor, as a table `[model.arguments]`."""


@dataclass(frozen=True)
class DataSpec:
    """Where images come from, their size in pixels, and how many of them are used for what."""

    name: str
    """`digits` (classification) and `digit-scenes` (detection), both made from scikit-learn's bundled digits, or
    `folder` (classification, [your own images](own-network.md#images)).
    """
    image_size: int
    """Height and width in pixels of the network's input, which is `3 × image_size × image_size`."""
    path: str | None = None
    """For `folder`: where the images are, relative to the recipe."""
    train_images: int = 2048
    """How many images training draws from, at most."""
    calibration_images: int = 128
    """How many set the ranges, at most; taken from the training images."""
    validation_images: int = 512
    """How many measure accuracy, at most; never seen in training."""
    batch: int = 16
    """Images at a time in calibration."""


@dataclass(frozen=True)
class QuantSpec:
    """How quantizers are placed and calibrated."""

    calibrator: Calibrator = "mse"
    """How an activation's range is chosen: `max`, `percentile`, `mse` or `entropy`. Weights always take each output
    channel's maximum.
    """
    percentile: float = 99.99
    """For `percentile`: the share of values in the range, in percent."""
    exclude: tuple[str, ...] = ()
    """Globs over module names; matching `Conv2d` and `Linear` layers stay float. A glob that matches nothing is an
    error.
    """
    residual: bool = True
    """Quantize the other input of an addition behind a convolution, so that TensorRT can fuse the two in int8."""
    tie: bool = True
    """Let tensors that TensorRT joins (Concat, MaxPool, ...) share one quantizer, in calibration and in training."""


@dataclass(frozen=True)
class FinetuneSpec:
    """How the quantized network is trained (QAT)."""

    iterations: int = 200
    """Training steps; a fixed number, so that the result does not depend on the machine's speed."""
    batch: int = 16
    """Images a step."""
    learning_rate: float = 1e-4
    """Its peak: linear warm-up, then cosine decay to zero."""
    warmup_iterations: int = 20
    """Steps of the warm-up."""


@dataclass(frozen=True)
class EngineSpec:
    """What is built: back ends in order, compute capabilities, batch, ONNX opset, the weights' form; limits."""

    backends: tuple[str, ...] = ("rtx", "ort")
    """What is built, in order: `trt` ([TensorRT](targets.md) on this machine's GPU), `trtexec` (the same by its
    command line), `rtx` (TensorRT-RTX ahead of time, no GPU needed), `ort` (ONNX Runtime's optimized file) and
    `ort-native` (requantized [for the CPU](onnxruntime.md)).
    """
    targets: tuple[str, ...] = ("sm86",)
    """Compute capabilities that the `rtx` engine must run on: `sm75`, `sm80`, `sm86`, `sm89`, `sm120`, `sm121`."""
    batch: int = 1
    """The batch that the ONNX file and the engine are made for."""
    dynamic_batch: tuple[int, ...] = ()
    """The smallest and the largest batch, as in `[1, 16]`, of files and engines that take any between them; `batch` is
    then the one that engines are tuned for. Empty: `batch` alone.
    """
    opset: int = 17
    """The ONNX opset, 13 to 20."""
    weights: Literal["int8", "float"] = "int8"
    """How quantized weights are stored: `int8` (TensorRT 10, 11, RTX, ONNX Runtime; a quarter of the size) or `float`
    (with Q and DQ behind them, as TensorRT 8 wants them).
    """
    float_type: Literal["fp32", "fp16"] = "fp32"
    """The type of what the `ptq` and `qat` modes leave unquantized: `fp32`, or `fp16` for engines that take FP16 from
    the file alone (TensorRT-RTX, TensorRT 11); see [FP16](fp16.md).
    """
    per_tensor_weights: bool = False
    """One weight scale for each quantized convolution, the channels' ratios multiplied behind it: TensorRT-RTX then
    writes FP16 out of it. With `float_type = "fp16"` alone.
    """
    tensorrt: tuple[str, ...] = ()
    """The versions that the ONNX files are for, such as `["8.6", "11.4"]`: what they do not take is refused before
    anything is trained. See [TensorRT by version](targets.md).
    """
    ptq: Literal["explicit", "implicit"] = "explicit"
    """What `ptq` is: `explicit` (Q/DQ in the file) or `implicit` (TensorRT's own calibration of the float network on
    the recipe's images, up to 10.x; back ends without it stay explicit).
    """
    workspace_mib: int | None = None
    """The most scratch memory of a layer, in MiB."""
    level: int | None = None
    """TensorRT's builder optimization level, 0 to 5; from 8.6 on."""
    strongly_typed: bool = False
    """Types as the file has them, where TensorRT would choose by flags; from 10 on, and always so from 11 on."""
    timing_cache: str | None = None
    """A file of TensorRT's timings, relative to the recipe: read where it is there, and written."""
    dla_core: int | None = None
    """A DLA core of a Jetson, with the GPU for what it cannot run."""
    timeout_s: float = 3600.0
    """The most seconds that one engine may take. A limit changes nothing of what is made, so nothing is made again for
    another one.
    """
    memory_limit_mib: int | None = None
    """The most memory that the builder may take, in MiB; without one, what is free."""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `path` is the TOML file, and results land in the folder of the same name beside it."""

    path: Path
    model: ModelSpec
    data: DataSpec
    quantization: QuantSpec = QuantSpec()
    finetune: FinetuneSpec = FinetuneSpec()
    engine: EngineSpec = EngineSpec()
    seed: int = 0
    """Data generation and splits, random weights, the order of training images."""
    threads: int = 2
    """CPU threads of every stage. Fixed, because another number rounds differently and gives other bytes."""

    @property
    def name(self) -> str:
        """The recipe file's name without its suffix."""
        return self.path.stem

    @property
    def folder(self) -> Path:
        """Where everything that this recipe builds is kept."""
        return self.path.with_suffix("")

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint file, resolved against the recipe's folder."""
        return None if self.model.checkpoint is None else self.path.parent / self.model.checkpoint


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises `ConfigError` when the file is missing, is not TOML, or holds an unknown key or a value of the wrong type.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        nearby = sorted(str(other) for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such recipe{did_you_mean(str(path), nearby)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name the recipe's .toml file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: is not a TOML file ({error})") from error
    recipe: Recipe = _table(Recipe, document, str(path), given={"path": path.resolve()})
    _check_ranges(recipe)
    return recipe


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _table(kind: Any, table: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None) -> Any:
    given = given or {}
    hints = typing.get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind) if one.name not in given}
    for key in table:
        if key not in fields:
            known = ", ".join(fields)
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(key, fields) or f'; known keys are {known}'}")
    values = dict(given)
    for name, one in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], f"{where}: {name}")
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: '{name}' is missing")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table, not {value!r}")
        return _table(hint, value, where)
    if origin in (types.UnionType, typing.Union):
        return _value(choices[0], value, where)
    if origin is Literal:
        if value not in choices:
            words = ", ".join(map(str, choices))
            raise ConfigError(f"{where} is {value!r}; it must be one of {words}{did_you_mean(str(value), choices)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_value(choices[0], one, where) for one in value)
    if origin is not None:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table, not {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value


def _check_ranges(recipe: Recipe) -> None:
    positive = {
        "data.image_size": recipe.data.image_size,
        "data.train_images": recipe.data.train_images,
        "data.calibration_images": recipe.data.calibration_images,
        "data.validation_images": recipe.data.validation_images,
        "data.batch": recipe.data.batch,
        "engine.batch": recipe.engine.batch,
        "engine.timeout_s": recipe.engine.timeout_s,
        "finetune.iterations": recipe.finetune.iterations,
        "finetune.batch": recipe.finetune.batch,
        "finetune.learning_rate": recipe.finetune.learning_rate,
        "threads": recipe.threads,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{recipe.path}: {name} is {value}; it must be greater than 0")
    if not 0 < recipe.quantization.percentile <= 100:
        raise ConfigError(
            f"{recipe.path}: quantization.percentile is {recipe.quantization.percentile}; it must be in (0, 100]"
        )
    _check_engine(recipe.path, recipe.engine)


def _check_engine(path: Path, engine: EngineSpec) -> None:
    if engine.memory_limit_mib is not None and engine.memory_limit_mib <= 0:
        raise ConfigError(f"{path}: engine.memory_limit_mib is {engine.memory_limit_mib}; it must be greater than 0")
    if engine.dla_core is not None and engine.dla_core < 0:
        raise ConfigError(f"{path}: engine.dla_core is {engine.dla_core}; cores are numbered from 0")
    if engine.dynamic_batch and not (
        len(engine.dynamic_batch) == 2 and 0 < engine.dynamic_batch[0] <= engine.batch <= engine.dynamic_batch[1]
    ):
        raise ConfigError(
            f"{path}: engine.dynamic_batch is {list(engine.dynamic_batch)}; it must be the smallest and the largest "
            f"batch, with engine.batch ({engine.batch}) between them"
        )
    if engine.per_tensor_weights and engine.float_type != "fp16":
        raise ConfigError(f'{path}: engine.per_tensor_weights is for FP16; set engine.float_type = "fp16" too')
    if not 13 <= engine.opset <= 20:
        raise ConfigError(f"{path}: engine.opset is {engine.opset}; the exporter writes Q/DQ at 13 to 20")
