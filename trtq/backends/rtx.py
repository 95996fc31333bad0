"""TensorRT-RTX: engines built ahead of time, without a GPU, by NVIDIA's own builder in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtq import files
from trtq.backends import BuildOptions, BuildSpec, Engine, Progress, building, child, dialects, onnx_file
from trtq.backends.building import Vendor
from trtq.config import did_you_mean
from trtq.errors import ConfigError, MissingBackendError
from trtq.layers.rtx import BuildRecord, read_graph

try:
    import tensorrt_rtx as trt
except (ImportError, OSError):  # OSError: the package is there, a library that it needs is not
    trt = None

NAME = "rtx"
BUILDS_WITHOUT_GPU = True
PLAN_NAME = "engine.rtx.plan"
PACKAGE = "tensorrt-rtx-cu12"
TELLS_LAYERS = True
HAS_TARGETS = True
HAS_IMPLICIT_PTQ = False
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
TURING = "sm75"
VENDOR = Vendor("trtq.backends.rtx_worker", "TensorRT-RTX")


def version() -> str:
    """Return TensorRT-RTX's version; raises `MissingBackendError` where it is not installed."""
    return str(module().__version__)


def module() -> Any:
    """Return TensorRT-RTX's Python module; raises `MissingBackendError` where it is not installed."""
    if trt is None:
        raise MissingBackendError(
            "TensorRT-RTX is not installed; run `pip install trtq[rtx]` (it comes under NVIDIA's own licence)"
        )
    return trt


def build(spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
    """Build `spec.onnx` into `plan`, with the builder's log beside it as `<plan>.log`; same input, same bytes.

    The builder runs in a process of its own, which an interrupt ends and whose crash is only an error here; a failed
    build leaves nothing but `<plan>.failed.log`.

    Raises `ConfigError` for targets and options that cannot be built, `ModelError` where the ONNX file is broken or
    holds something that TensorRT-RTX does not take, `BuildError` where the builder refuses, dies or crosses a limit of
    `spec.options`, `MissingBackendError` and `OutputError`.
    """
    installed = version()
    check_targets(spec.targets)
    planned = building.plan_for(spec, dialects.detect(trt))
    record = BuildRecord(f"{VENDOR.title} {installed}", spec.targets, onnx_file.sha256_of(planned.spec))
    with files.atomic_path(plan) as temporary, child.scratch() as scratch:
        temporary.unlink()
        request = building.request(planned, temporary, scratch, layers=False)
        with building.kept_log(plan, scratch, record.header() + "\n"):
            outcome = child.run(_job(spec.onnx, temporary, request, spec.options), scratch, progress)
            facts = building.built(outcome, planned, VENDOR)
            layers = read_graph(record.header() + "\n" + child.log_of(scratch), str(building.log_path(plan)))
        plan_bytes = temporary.stat().st_size
    return Engine(
        backend=NAME,
        version=installed,
        plan=plan,
        targets=spec.targets,
        plan_bytes=plan_bytes,
        build_s=facts["build_s"],
        peak_memory_mib=facts["peak_memory_mib"],
        layers=layers,
    )


def check_targets(targets: Sequence[str]) -> None:
    """Raise `ConfigError` where a target is unknown, or where the list cannot be built as one engine."""
    if not targets:
        raise ConfigError(f"TensorRT-RTX needs at least one target; known are {', '.join(TARGETS)}")
    for target in targets:
        if target not in TARGETS:
            hint = did_you_mean(target.lower(), TARGETS) or f"; known are {', '.join(TARGETS)}"
            raise ConfigError(f"target '{target}' is not one that TensorRT-RTX builds for{hint}")
    if len(set(targets)) < len(targets):
        raise ConfigError(f"targets {', '.join(targets)} name one twice; name each once")
    if TURING in targets and len(targets) > 1:
        raise ConfigError(
            f"{TURING} cannot share an engine with other targets: all would run its graph, which has no int8 "
            "convolutions; build it on its own"
        )


def _job(source: Path, plan: Path, request: Mapping[str, Any], options: BuildOptions) -> child.Job:
    return child.Job(VENDOR.worker, VENDOR.title, source, plan.parent, request, options)
