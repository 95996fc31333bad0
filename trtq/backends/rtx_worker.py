"""The child process of the TensorRT-RTX back end: one builder, one network, one logger, then the end of the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import tensorrt_rtx as trt

from trtq.backends import vendor_build, worker


def work(request: Mapping[str, Any], log_file: IO[str]) -> dict[str, Any]:
    """Do what the request says, with TensorRT-RTX."""
    return vendor_build.work(trt, request, log_file)


if __name__ == "__main__":
    worker.serve(work)
