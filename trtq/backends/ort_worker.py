"""The child process of the ONNX Runtime back end: one session, which writes what it has optimized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from trtq.backends import ort, worker
from trtq.errors import ModelError


def work(request: Mapping[str, Any], _: IO[str]) -> dict[str, Any]:
    """Write the optimized network, or tell why ONNX Runtime refuses it."""
    try:
        ort.write_optimized(Path(request["onnx"]), Path(request["plan"]))
    except ModelError as error:
        return {"refused": str(error)}
    return {"peak_memory_mib": worker.peak_memory_mib()}


if __name__ == "__main__":
    worker.serve(work)
