"""ONNX Runtime on the CPU: runs ONNX files for accuracy, never for speed, and converts float networks to FP16."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir

from trtq import files
from trtq.backends import BuildSpec, Engine, Progress, TensorSpec, onnx_file
from trtq.errors import BuildError, MissingBackendError, ModelError

try:
    import onnxruntime
    from onnxruntime.transformers import float16
except (ImportError, OSError):
    onnxruntime = None

NAME = "ort"
BUILDS_WITHOUT_GPU = True
PLAN_NAME = "engine.ort.onnx"
PACKAGE = "onnxruntime"
TELLS_LAYERS = False
HAS_TARGETS = False
HAS_IMPLICIT_PTQ = False
RUNS_WITHOUT_GPU = True
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
FATAL_ONLY = 4
DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "int8": "int8", "uint8": "uint8", "int16": "int16",
    "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip


class OrtSession:
    """An ONNX file loaded into ONNX Runtime; equal feeds give equal outputs."""

    def __init__(self, session: Any, where: str) -> None:
        self._session = session
        self._where = where
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run once and return every output by name; raises `ModelError` when the feeds do not fit the inputs."""
        _check_feeds(feeds, self.inputs, self._where)
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise ModelError(f"{self._where}: ONNX Runtime cannot run it ({_reason(error)})") from error
        return {spec.name: np.asarray(value) for spec, value in zip(self.outputs, values, strict=True)}


def version() -> str:
    """Return ONNX Runtime's version; raises `MissingBackendError` where it is not installed."""
    return str(_runtime().__version__)


def build(spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
    """Write ONNX Runtime's optimized network to `plan`; same input, same bytes; `spec.targets` do not matter to it.

    The optimizations are those that hold on every CPU. What ONNX Runtime fuses is not read: `layers` is None.
    Raises `ModelError`, `BuildError`, `MissingBackendError`, `OutputError`.
    """
    installed = version()
    onnx_file.check(spec.onnx)
    start = time.perf_counter()
    if progress is not None:
        progress("Optimizing", 0, 1)
    with files.atomic_path(plan) as temporary:
        options = _options(threads=1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(temporary)
        try:
            _session(spec.onnx, options)
        except ModelError as error:
            raise BuildError(str(error)) from error
        plan_bytes = temporary.stat().st_size
    if progress is not None:
        progress("Optimizing", 1, 1)
    return Engine(
        backend=NAME,
        version=installed,
        plan=plan,
        targets=(),
        plan_bytes=plan_bytes,
        build_s=time.perf_counter() - start,
        peak_memory_mib=None,
        layers=None,
    )


def load(plan: Path, *, threads: int = 1) -> OrtSession:
    """Load an ONNX file, or what `build` wrote, on the CPU with that many threads.

    Q/DQ nodes are computed as the file has them, rounding between float operators: the integer kernels that
    ONNX Runtime would fuse them into saturate on processors without VNNI, so accuracy would depend on the machine.
    Raises `ModelError` where the file is missing, broken, or holds what ONNX Runtime cannot run.
    """
    _runtime()
    onnx_file.load(plan)
    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return OrtSession(_session(plan, options), str(plan))


def convert_fp16(source: Path, target: Path) -> None:
    """Write the float network in `source` as FP16 to `target`; inputs and outputs keep their types.

    Raises `ModelError` for a network with Q/DQ nodes: casts beside weight scales crash TensorRT-RTX's builder.
    """
    _runtime()
    model = onnx_file.check(source)
    if any(node.op_type in QUANTIZERS for node in model.graph.node):
        raise ModelError(
            f"{source}: holds Q/DQ nodes; only float networks are converted to FP16 (the casts of a converted Q/DQ "
            "network crash TensorRT-RTX's builder)"
        )
    converted = _converted(source)
    with files.atomic_path(target) as temporary:
        onnx.save(converted, str(temporary), format="protobuf")
        onnx_file.check(temporary)


def _converted(source: Path) -> onnx.ModelProto:
    logger, level = logging.getLogger(float16.__name__), logging.getLogger(float16.__name__).level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every weight that it rounds to zero or clips
            model = float16.convert_float_to_float16(onnx.load(str(source), format="protobuf"), keep_io_types=True)
    except Exception as error:  # the converter's errors share no base
        raise ModelError(f"{source}: cannot be converted to FP16 ({_reason(error)})") from error
    finally:
        logger.setLevel(level)
    _drop_repeated_casts(model)
    # The converter appends its casts at the end: the standard wants producers first.
    ordered = onnx_ir.from_proto(model)
    ordered.graph.sort()
    result: onnx.ModelProto = onnx_ir.to_proto(ordered)
    return result


def _drop_repeated_casts(model: onnx.ModelProto) -> None:
    """Keep one of equal casts: the converter writes one, under one name, for each node that reads a shared constant."""
    written: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in written:
            model.graph.node.remove(node)
        written.update(node.output)


def _runtime() -> Any:
    if onnxruntime is None:
        raise MissingBackendError("ONNX Runtime is not installed; run `pip install trtq[ort]`")
    return onnxruntime


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = FATAL_ONLY
    return options


def _session(path: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise ModelError(f"{path}: ONNX Runtime cannot load it ({_reason(error)})") from error


def _spec(value: Any) -> TensorSpec:
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)
    return TensorSpec(value.name, dims, _numpy_name(value.type))


def _numpy_name(onnx_type: str) -> str:
    inner = onnx_type.removeprefix("tensor(").removesuffix(")")
    return DTYPES.get(inner, inner)


def _check_feeds(feeds: Mapping[str, npt.NDArray[Any]], inputs: tuple[TensorSpec, ...], where: str) -> None:
    wanted, given = {spec.name for spec in inputs}, set(feeds)
    if wanted != given:
        raise ModelError(f"{where}: wants inputs {sorted(wanted)}, but was given {sorted(given)}")
    for spec in inputs:
        array = feeds[spec.name]
        fits = len(array.shape) == len(spec.dims) and all(
            want in (-1, have) for want, have in zip(spec.dims, array.shape, strict=True)
        )
        if not fits or array.dtype.name != spec.dtype:
            raise ModelError(
                f"{where}: input '{spec.name}' takes {spec.dtype} {list(spec.dims)}, "
                f"but was given {array.dtype.name} {list(array.shape)}"
            )


def _reason(error: Exception) -> str:
    return onnx_file.one_line(str(error))
