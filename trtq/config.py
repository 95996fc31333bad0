"""Recipes: one TOML file says which network, which data, how to quantize and for which engines."""

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
    """Which network: `name` is one of the zoo's or `package.module:callable`; `arguments` go to its constructor."""

    name: str
    checkpoint: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """Where images come from, their size in pixels, and how many of them are used for what."""

    name: str
    image_size: int
    path: str | None = None
    train_images: int = 2048
    calibration_images: int = 128
    validation_images: int = 512
    batch: int = 16


@dataclass(frozen=True)
class QuantSpec:
    """How quantizers are placed and calibrated; `exclude` holds globs over module names that stay float."""

    calibrator: Calibrator = "mse"
    percentile: float = 99.99
    exclude: tuple[str, ...] = ()
    residual: bool = True
    tie: bool = True


@dataclass(frozen=True)
class FinetuneSpec:
    """The QAT schedule: a fixed number of iterations, so that the result does not depend on the machine's speed."""

    iterations: int = 200
    batch: int = 16
    learning_rate: float = 1e-4
    warmup_iterations: int = 20


@dataclass(frozen=True)
class EngineSpec:
    """What is built: back ends in order, compute capabilities, batch, ONNX opset, and the weights' form in the file.

    float_type: the type of what the ptq and qat modes leave unquantized. per_tensor_weights: one weight scale for each
    convolution of these modes, the channels' ratios behind it, which lets TensorRT-RTX write FP16; with "fp16" alone.
    tensorrt: versions that the ONNX files are for, checked before anything is made. ptq: "implicit" leaves quantizing
    to the back ends that have a calibrator. dynamic_batch: smallest and largest batch of files and engines that take
    any between them, `batch` being the usual one; empty for `batch` alone. timeout_s and memory_limit_mib stop a build,
    and change nothing of what it makes. The rest is TensorRT's own; `timing_cache` is relative to the recipe.
    """

    backends: tuple[str, ...] = ("rtx", "ort")
    targets: tuple[str, ...] = ("sm86",)
    batch: int = 1
    dynamic_batch: tuple[int, ...] = ()
    opset: int = 17
    weights: Literal["int8", "float"] = "int8"
    float_type: Literal["fp32", "fp16"] = "fp32"
    per_tensor_weights: bool = False
    tensorrt: tuple[str, ...] = ()
    ptq: Literal["explicit", "implicit"] = "explicit"
    workspace_mib: int | None = None
    level: int | None = None
    strongly_typed: bool = False
    timing_cache: str | None = None
    dla_core: int | None = None
    timeout_s: float = 3600.0
    memory_limit_mib: int | None = None


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
    threads: int = 2

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
