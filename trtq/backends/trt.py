"""TensorRT 8.5 to 11, x86 and Jetson: engines built on the GPU that runs them, by its Python API in a child process.

Not run on a GPU yet: its calls are those of the planner, which are compared with the names of real wheels, and made by
the code that builds with TensorRT-RTX; running an engine is shared with TensorRT-RTX too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trtq import files
from trtq.backends import BuildSpec, Engine, Progress, building, child, dialects, manifest, onnx_file
from trtq.backends.building import CALIBRATION_NAME, LAYERS_NAME, TIMING_CACHE_NAME, Vendor
from trtq.backends.dialects import Dialect
from trtq.backends.planner import BuildPlan
from trtq.backends.runtime import PLAIN, GpuSession, RunOptions, load_plan
from trtq.errors import MissingBackendError, ModelError
from trtq.layers import inspector
from trtq.layers.graph import LayerGraph
from trtq.machine import machine

try:
    import tensorrt as trt
except (ImportError, OSError):  # OSError: the package is there, a library that it needs is not
    trt = None

NAME = "trt"
BUILDS_WITHOUT_GPU = False
RUNS_WITHOUT_GPU = False
PLAN_NAME = "engine.trt.plan"
PACKAGE = "tensorrt"
TELLS_LAYERS = True
HAS_TARGETS = False
# From 11 on TensorRT quantizes nothing by itself.
HAS_IMPLICIT_PTQ = trt is not None and hasattr(getattr(trt, "IBuilderConfig", None), "int8_calibrator")
VENDOR = Vendor("trtq.backends.trt_worker", "TensorRT")


def version() -> str:
    """Return TensorRT's version; raises `MissingBackendError` where its Python module is not installed."""
    return str(_module().__version__)


def dialect() -> Dialect:
    """Return what the installed TensorRT can do; raises `MissingBackendError`."""
    return dialects.detect(_module())


def build(spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
    """Build `spec.onnx` into `plan` for this machine's GPU, with the builder's log beside it as `<plan>.log`.

    Implicit PTQ from batches leaves TensorRT's cache as `<plan>.calibration.cache`; a timing cache is read where it is
    there, and written anew. Two builds have the same bytes only with one timing cache: tactics are chosen by timing.

    Raises `ConfigError` for a mode or an option that this TensorRT does not have, `ModelError` where the ONNX file is
    broken or of a form that it does not take, `DataError` for calibration batches, `BuildError` where the builder
    refuses, dies or crosses a limit of `spec.options`, `MissingBackendError` and `OutputError`.
    """
    planned = building.plan_for(spec, dialect())
    with files.atomic_path(plan) as temporary, child.scratch() as scratch:
        temporary.unlink()
        request = building.request(planned, temporary, scratch, layers=True)
        job = child.Job(VENDOR.worker, VENDOR.title, spec.onnx, plan.parent, request, spec.options)
        with building.kept_log(plan, scratch):
            facts = building.built(child.run(job, scratch, progress), planned, VENDOR)
            layers = _layers(planned, scratch / LAYERS_NAME)
        plan_bytes = temporary.stat().st_size
        _keep(spec, plan, scratch)
    return Engine(
        backend=NAME,
        version=version(),
        plan=plan,
        targets=tuple(gpu.sm for gpu in machine(ask_driver=True).gpus[:1] if gpu.sm is not None),
        plan_bytes=plan_bytes,
        build_s=facts["build_s"],
        peak_memory_mib=facts["peak_memory_mib"],
        layers=layers,
        notes=planned.notes,
    )


def load(plan: Path, *, threads: int = 1, options: RunOptions = PLAIN) -> GpuSession:
    """Load an engine that `build` wrote onto the GPU; `threads` of the host do not matter to it.

    Raises `ModelError` where the manifest beside the plan is missing or says that it is foreign (another version, GPU
    or back end), before TensorRT sees the plan, or where TensorRT refuses it; `MissingBackendError` where there is no
    TensorRT, no GPU, no driver, or neither cuda-python nor pycuda.
    """
    manifest.check_loadable(plan, machine(ask_driver=True), backend=NAME, version=version())
    return load_plan(_module(), plan, options=options)


def _module() -> Any:
    if trt is None:
        raise MissingBackendError(
            "TensorRT's Python module is not installed here; on a Jetson it comes with JetPack (python3-libnvinfer), "
            "on x86 with NVIDIA's image nvcr.io/nvidia/tensorrt; with trtexec alone use --backend trtexec"
        )
    return trt


def _layers(planned: BuildPlan, path: Path) -> LayerGraph:
    if not path.is_file():
        raise ModelError(f"{planned.spec.onnx}: TensorRT built an engine and then could not load it; see its log")
    graph = inspector.read_graph(files.read_json(path), planned.dialect.product)
    return replace(graph, source=planned.dialect.product, onnx_sha256=onnx_file.sha256_of(planned.spec))


def _keep(spec: BuildSpec, plan: Path, scratch: Path) -> None:
    timings, ranges = scratch / TIMING_CACHE_NAME, scratch / CALIBRATION_NAME
    if spec.options.timing_cache is not None and timings.is_file():
        files.write_bytes(spec.options.timing_cache, timings.read_bytes())
    if ranges.is_file():
        files.write_bytes(plan.with_name(plan.name + ".calibration.cache"), ranges.read_bytes())
