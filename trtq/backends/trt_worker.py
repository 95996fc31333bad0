"""The child process of the TensorRT back end: one builder, one network, one logger, then the end of the process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import IO, Any

import tensorrt as trt

from trtq.backends import calibrator, cuda, vendor_build, worker


def work(request: Mapping[str, Any], log_file: IO[str]) -> dict[str, Any]:
    """Do what the request says, with TensorRT."""
    return vendor_build.work(trt, request, log_file, partial(calibrator.make, open_cuda=cuda.open_cuda))


if __name__ == "__main__":
    worker.serve(work)
