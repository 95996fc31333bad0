"""The child process of the TensorRT-RTX back end: one builder, one network, one logger, then the end of the process.

NVIDIA's builder can abort the process, so nothing else lives here. The parent gives an ONNX file and where to write;
progress goes to stderr as JSON lines, the outcome to a JSON file, and the plan exists only where the build succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import tensorrt_rtx as trt

from trtq.errors import OutputError

# Deep chains recurse in the builder: 3000 pointwise nodes overflow the usual 8 MiB.
STACK_BYTES = 512 * 2**20
PROGRESS_KEY = "trtq_progress"


class Log(trt.ILogger):  # type: ignore[misc]
    """Writes each message at once, so that a crash keeps the last ones."""

    def __init__(self, file: IO[str]) -> None:
        trt.ILogger.__init__(self)
        self._file = file

    def log(self, severity: Any, message: str) -> None:
        """Write one message; called by the builder, from its threads too."""
        self._file.write(f"[{severity.name}] {message}\n")
        self._file.flush()


class Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """Tells the parent about the phases of the build."""

    def __init__(self) -> None:
        trt.IProgressMonitor.__init__(self)
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Remember the number of steps in a phase."""
        self._steps[phase_name] = num_steps
        _tell(phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Report a step, and go on."""
        _tell(phase_name, step + 1, self._steps.get(phase_name, 0))
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Report the phase's end."""
        steps = self._steps.pop(phase_name, 0)
        _tell(phase_name, steps, steps)


def main(arguments: list[str]) -> None:
    """Build, write the outcome, and leave without the libraries' own clean-up: it may crash after a good build."""
    parser = argparse.ArgumentParser(prog="trtq.backends.rtx_worker")
    for name in ("onnx", "plan", "log", "outcome"):
        parser.add_argument(name, type=Path)
    parser.add_argument("targets", nargs="*", help="none: only parse, and tell what is refused")
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.stack_size(STACK_BYTES)
    worker = threading.Thread(target=_work, args=(options,))
    worker.start()
    worker.join()
    sys.stderr.flush()
    os._exit(0)


def _work(options: argparse.Namespace) -> None:
    try:
        with options.log.open("w", encoding="utf-8") as file:
            log = Log(file)
            outcome = (
                build(options.onnx, options.plan, options.targets, log) if options.targets else parse(options.onnx, log)
            )
            options.outcome.write_text(json.dumps(outcome), encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(OutputError.exit_code)


def build(onnx: Path, plan: Path, targets: list[str], log: Log) -> dict[str, Any]:
    """Build the plan and return the outcome: parse errors, build time, peak memory."""
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        return {"parse_errors": [_parse_error(parser.get_error(i)) for i in range(parser.num_errors)]}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.max_aux_streams = 0
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    progress = Progress()
    config.progress_monitor = progress
    start = time.perf_counter()
    serialized = builder.build_serialized_network(network, config)
    build_s = time.perf_counter() - start
    if serialized is not None:
        plan.write_bytes(serialized)
    return {"build_s": build_s, "peak_memory_mib": _peak_memory_mib(), "built": serialized is not None}


def parse(onnx: Path, log: Log) -> dict[str, Any]:
    """Parse the file alone and return what the parser refuses: none when it takes everything."""
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.parse_from_file(str(onnx))
    return {"refusals": [_parse_error(parser.get_error(i)) for i in range(parser.num_errors)]}


def _parse_error(error: Any) -> dict[str, str]:
    return {
        "index": error.node(),
        "node": error.node_name(),
        "operator": error.node_operator(),
        "reason": error.desc(),
    }


def _tell(phase: str, step: int, steps: int) -> None:
    sys.stderr.write(json.dumps({PROGRESS_KEY: [phase, step, steps]}) + "\n")
    sys.stderr.flush()


def _peak_memory_mib() -> float:
    # Not getrusage: its maximum is inherited from the parent that this process was forked from.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _end_with_parent() -> None:
    # The parent holds the other end of stdin: it closes when the parent dies, however it dies.
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
