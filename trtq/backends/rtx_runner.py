"""TensorRT-RTX's engines on the GPU; apart from what builds them, which needs no GPU and starts sooner without CUDA."""

from __future__ import annotations

from pathlib import Path

from trtq.backends import manifest, rtx
from trtq.backends.runtime import PLAIN, GpuSession, RunOptions, load_plan
from trtq.machine import machine

NAME = rtx.NAME
RUNS_WITHOUT_GPU = False


def load(plan: Path, *, threads: int = 1, options: RunOptions = PLAIN) -> GpuSession:
    """Load an engine that `rtx.build` wrote onto the GPU; `threads` of the host do not matter to it.

    Raises `ModelError` where the manifest beside the plan is missing or says that it is foreign (another version, GPU
    or back end), before TensorRT-RTX sees the plan, or where TensorRT-RTX refuses it; `MissingBackendError` where
    there is no TensorRT-RTX, no GPU, no driver, or neither cuda-python nor pycuda.
    """
    manifest.check_loadable(plan, machine(ask_driver=True), backend=NAME, version=rtx.version())
    return load_plan(rtx.module(), plan, options=options)
