"""ONNX Runtime on the CPU: runs ONNX files for accuracy, never for speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import files, qdq
from trtq.backends import BuildOptions, BuildSpec, Engine, Progress, TensorSpec, child, onnx_file
from trtq.backends.feeds import check_feeds
from trtq.errors import BuildError, MissingBackendError, ModelError
from trtq.machine import Machine, machine
from trtq.qdq.model import copy_weights

try:
    import onnxruntime
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
FATAL_ONLY = 4
VENDOR = "ONNX Runtime"
WORKER = "trtq.backends.ort_worker"
EXACT_SUMS = "session.x64quantprecision"  # onnxruntime_session_options_config_keys.h
X86 = ("x86_64", "AMD64")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})
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
        check_feeds(feeds, self.inputs, self._where)
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
    plan_bytes = optimize(spec.onnx, plan, spec.options)
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


def optimize(source: Path, plan: Path, limits: BuildOptions | None = None) -> int:
    """Write the network in `source` with the optimizations that hold on every CPU to `plan`; return its bytes.

    Weights in a file of their own stay there, and the file is copied beside `plan`. In a process of its own, which
    keeps to the time and memory of `limits`. Raises `BuildError`, `OutputError`.
    """
    with files.atomic_path(plan) as temporary, child.scratch() as scratch:
        request = {"onnx": str(source.resolve()), "plan": str(temporary.resolve())}
        job = child.Job(WORKER, VENDOR, source, plan.parent, request, limits or BuildOptions())
        facts = child.run(job, scratch).facts
        if "refused" in facts:
            raise BuildError(facts["refused"].replace(request["onnx"], str(source)))
        if onnx_file.external_files(onnx_file.load(source), source):
            copy_weights(qdq.load(source), plan.resolve().parent)
        return temporary.stat().st_size


def write_optimized(source: Path, target: Path) -> None:
    """Write the optimized network in this process; raises `ModelError` where ONNX Runtime refuses it."""
    options = _options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    _session(source, options)


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


def load_fused(plan: Path, *, threads: int = 1) -> OrtSession:
    """Load an ONNX file with every optimization for this CPU, Q/DQ nodes fused into integer kernels.

    Where the processor lacks VNNI, uint8 times int8 would saturate: ONNX Runtime then takes uint8 weights, slower.
    Raises as `load` does.
    """
    return OrtSession(_fused(plan, threads), str(plan))


def load_profiled(
    plan: Path, prefix: Path, *, threads: int = 1, network: Path | None = None
) -> tuple[OrtSession, Callable[[], str]]:
    """Do what `load_fused` does, with ONNX Runtime's profiler on; what comes second stops it and names its file.

    network: where the network that runs, after all fusions, is written.
    """
    session = _fused(plan, threads, prefix, network)
    return OrtSession(session, str(plan)), session.end_profiling


def sums_saturate(here: Machine) -> bool:
    """Tell whether ONNX Runtime's kernels saturate in the sum of two products of uint8 and int8: x86 without VNNI.

    Source: "Choosing parameters for CPU inference" of onnxruntime.quantization.
    """
    return any(name in here.platform for name in X86) and not VNNI & set(here.instruction_sets)


def _fused(plan: Path, threads: int, profile_prefix: Path | None = None, network: Path | None = None) -> Any:
    _runtime()
    onnx_file.load(plan)
    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if sums_saturate(machine()):
        options.add_session_config_entry(EXACT_SUMS, "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if network is not None:
        options.optimized_model_filepath = str(network)
    return _session(plan, options)


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


def _reason(error: Exception) -> str:
    return onnx_file.one_line(str(error))
