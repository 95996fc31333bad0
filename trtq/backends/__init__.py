"""Back ends: who builds engines and who runs them, one module each; vendor packages are imported here alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from trtq.config import Mode, did_you_mean
from trtq.errors import ConfigError

if TYPE_CHECKING:
    # A builder's child process imports this room too, and starts in half the time without these.
    import numpy.typing as npt

    from trtq.backends.onnx_file import Checked
    from trtq.layers.graph import LayerGraph

# What a parser refuses: the tensor that each refused node writes, None where it is the whole file, and why; asked
# before, waited for when called.
Refusals = Callable[[], tuple[tuple[str | None, str], ...]]

BUILDERS: dict[str, str] = {
    "trt": "trtq.backends.trt",
    "trtexec": "trtq.backends.trtexec",
    "rtx": "trtq.backends.rtx",
    "ort": "trtq.backends.ort",
    "ort-native": "trtq.backends.ort_native",
}
PARSERS: dict[str, str] = {
    "rtx": "trtq.backends.rtx_parser",
}
RUNNERS: dict[str, str] = {
    "trt": "trtq.backends.trt",
    "ort": "trtq.backends.ort",
    "ort-native": "trtq.backends.ort_native",
    "rtx": "trtq.backends.rtx_runner",
}


@dataclass(frozen=True)
class ShapeRange:
    """The smallest, usual and largest shape of one dynamic input in one optimization profile."""

    input: str
    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


@dataclass(frozen=True)
class BuildOptions:
    """How to build; None leaves the vendor's default. `profiles` are needed for dynamic shapes alone."""

    profiles: tuple[tuple[ShapeRange, ...], ...] = ()
    workspace_mib: int | None = None
    level: int | None = None
    timing_cache: Path | None = None
    dla_core: int | None = None
    strongly_typed: bool = False
    timeout_s: float = 3600.0
    memory_limit_mib: int | None = None


@dataclass(frozen=True)
class BuildSpec:
    """What to build: an ONNX file, what it is quantized for, and the compute capabilities that the engine must run on.

    mode: "qat" and "ptq" with Q/DQ in the file are explicit quantization; "ptq" of a float file is implicit and needs
    a calibration cache (TensorRT's own text) or batches (a folder of .npy files, one batch each, in order of name);
    None builds the file as it is. known: what a check found out about the file, so that it is not read again.
    """

    onnx: Path
    targets: tuple[str, ...] = ("sm86",)
    mode: Mode | None = None
    options: BuildOptions = BuildOptions()
    calibration_cache: Path | None = None
    calibration_batches: Path | None = None
    known: Checked | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Engine:
    """A built engine; `layers` and the peak memory are None where the back end cannot tell; notes are for its user."""

    backend: str
    version: str
    plan: Path
    targets: tuple[str, ...]
    plan_bytes: int
    build_s: float
    peak_memory_mib: float | None
    layers: LayerGraph | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a session; a dimension of -1 is dynamic; `dtype` is NumPy's name of it."""

    name: str
    dims: tuple[int, ...]
    dtype: str


class Progress(Protocol):
    """Listens to a build."""

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        """Take note that `phase` has done `step` of its `steps`; phases nest."""


class Session(Protocol):
    """A loaded engine: arrays in, arrays out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run once and return every output by name; raises `ModelError` when the feeds do not fit."""


class Builder(Protocol):
    """A module that builds engines.

    PLAN_NAME: what an engine's file is called. PACKAGE: the package whose version decides its bytes.
    TELLS_LAYERS: whether `Engine.layers` is there. HAS_TARGETS: whether compute capabilities matter to it.
    HAS_IMPLICIT_PTQ: whether it can quantize a float network by itself, with a calibrator.
    """

    NAME: str
    BUILDS_WITHOUT_GPU: bool
    PLAN_NAME: str
    PACKAGE: str
    TELLS_LAYERS: bool
    HAS_TARGETS: bool
    HAS_IMPLICIT_PTQ: bool

    def version(self) -> str:
        """Return the vendor's version; raises `MissingBackendError` where it is not installed."""

    def build(self, spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
        """Build `spec.onnx` into `plan` atomically; raises `ModelError`, `BuildError`, `MissingBackendError`."""


class Parser(Protocol):
    """A module that can say what its parser refuses, without building."""

    NAME: str

    def ask(self, path: Path, weights_bytes: int = 0) -> Refusals:
        """Start asking what is refused of an ONNX file and its other files; the returned function waits for that."""


class Runner(Protocol):
    """A module that runs engines or ONNX files."""

    NAME: str
    RUNS_WITHOUT_GPU: bool

    def load(self, plan: Path, *, threads: int = 1) -> Session:
        """Load what `plan` holds; raises `ModelError`, `MissingBackendError`."""


def builder(name: str) -> Builder:
    """Return the back end of that name for building; raises `ConfigError` for an unknown name."""
    return cast(Builder, _module(name, BUILDERS))


def runner(name: str) -> Runner:
    """Return the back end of that name for running; raises `ConfigError` for an unknown name."""
    return cast(Runner, _module(name, RUNNERS))


def ask(name: str, path: Path, weights_bytes: int = 0) -> Refusals:
    """Start asking that back end's parser what it refuses in an ONNX file; raises `ConfigError` for an unknown name.

    weights_bytes: what the file keeps in others beside it, which the parser reads too.
    """
    return cast(Parser, _module(name, PARSERS)).ask(path, weights_bytes)


def _module(name: str, known: Mapping[str, str]) -> object:
    if name not in known:
        raise ConfigError(
            f"back end '{name}' is not known{did_you_mean(name, known) or '; known are ' + ', '.join(known)}"
        )
    return importlib.import_module(known[name])


if TYPE_CHECKING:
    # What mypy proves here: each module fits its protocol.
    from trtq.backends import ort, ort_native, rtx, rtx_parser, rtx_runner, trt, trtexec

    _rtx: Builder = rtx
    _ort: Builder = ort
    _ort_native: Builder = ort_native
    _trt: Builder = trt
    _trtexec: Builder = trtexec
    _rtx_parser: Parser = rtx_parser
    _ort_runner: Runner = ort
    _ort_native_runner: Runner = ort_native
    _rtx_runner: Runner = rtx_runner
    _trt_runner: Runner = trt
