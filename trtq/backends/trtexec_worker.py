"""The child process of the trtexec back end: starts the command, keeps its output as the log, tells how it ended."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Mapping
from typing import IO, Any

from trtq.backends import worker


def work(request: Mapping[str, Any], log_file: IO[str]) -> dict[str, Any]:
    """Run the request's command to its end and return its exit code and its peak memory."""
    worker.tell("trtexec", 0, 1)
    code = subprocess.run(request["command"], stdout=log_file, stderr=subprocess.STDOUT, check=False).returncode
    worker.tell("trtexec", 1, 1)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"code": code, "peak_memory_mib": peak_kib / 1024}


if __name__ == "__main__":
    worker.serve(work)
