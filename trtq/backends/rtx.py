"""TensorRT-RTX: engines built ahead of time, without a GPU, by NVIDIA's own builder in a child process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from trtq import files
from trtq.backends import BuildSpec, Engine, Progress, onnx_file
from trtq.config import did_you_mean
from trtq.errors import BuildError, ConfigError, MissingBackendError, ModelError, OutputError
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
WORKER = "trtq.backends.rtx_worker"
BUILD_TIMEOUT_S = 3600.0
LAST_LINES = 5
# Without a driver every error is followed by these: they explain nothing.
NOISE = ("cudaError 35", "Thread context has not been set")
_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
_MESSAGE = re.compile(rf"^\[({'|'.join(_SEVERITIES)})\] ", re.MULTILINE)


def version() -> str:
    """Return TensorRT-RTX's version; raises `MissingBackendError` where it is not installed."""
    if trt is None:
        raise MissingBackendError(
            "TensorRT-RTX is not installed; run `pip install trtq[rtx]` (it comes under NVIDIA's own licence)"
        )
    return str(trt.__version__)


def log_path(plan: Path) -> Path:
    """Return where the builder's log of a plan is kept."""
    return plan.with_name(plan.name + ".log")


def failed_log_path(plan: Path) -> Path:
    """Return where the log of a build that failed is kept."""
    return plan.with_name(plan.name + ".failed.log")


def build(
    spec: BuildSpec, plan: Path, *, progress: Progress | None = None, timeout_s: float = BUILD_TIMEOUT_S
) -> Engine:
    """Build `spec.onnx` into `plan`, with the builder's log beside it as `<plan>.log`; same input, same bytes.

    The builder runs in a process of its own, which an interrupt ends and whose crash is only an error here; a failed
    build leaves nothing but `<plan>.failed.log`.

    Raises `ConfigError` for targets that cannot be built, `ModelError` where the ONNX file is broken or holds something
    that TensorRT-RTX does not take, `BuildError` where the builder refuses, dies or takes longer than `timeout_s`,
    `MissingBackendError` and `OutputError`.
    """
    installed = version()
    check_targets(spec.targets)
    onnx_file.check(spec.onnx)
    record = BuildRecord(f"TensorRT-RTX {installed}", spec.targets, files.sha256(spec.onnx))
    with files.atomic_path(plan) as temporary, _scratch() as scratch:
        temporary.unlink()
        child = _Child(spec, temporary, scratch)
        try:
            outcome = child.run(timeout_s, progress)
        except (ModelError, BuildError):
            if child.log.is_file():
                files.write_text(failed_log_path(plan), _log(record, child.log))
            raise
        log = _log(record, child.log)
        layers = read_graph(log, str(log_path(plan)))
        plan_bytes = temporary.stat().st_size
        files.write_text(log_path(plan), log)
    failed_log_path(plan).unlink(missing_ok=True)
    return Engine(
        backend=NAME,
        version=installed,
        plan=plan,
        targets=spec.targets,
        plan_bytes=plan_bytes,
        build_s=outcome["build_s"],
        peak_memory_mib=outcome["peak_memory_mib"],
        layers=layers,
    )


def refusals(path: Path, *, timeout_s: float = BUILD_TIMEOUT_S) -> tuple[tuple[str, str], ...]:
    """Return what TensorRT-RTX's parser refuses in an ONNX file: the tensor that each refused node writes, and why.

    Only parses, in a process of its own. Raises `ModelError` for a broken file, `BuildError` where the parser dies or
    takes longer than `timeout_s`, `MissingBackendError`.
    """
    version()
    network = onnx_file.check(path)
    with _scratch() as scratch:
        outcome = _Child(BuildSpec(path, targets=()), scratch / PLAN_NAME, scratch).run(timeout_s, None)
    return tuple((_written(network, error), _refusal(error)) for error in outcome["refusals"])


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


@dataclass(frozen=True)
class _Child:
    """The worker process of one build and the files that it writes."""

    spec: BuildSpec
    plan: Path
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def outcome(self) -> Path:
        return self.folder / "outcome.json"

    def run(self, timeout_s: float, progress: Progress | None) -> dict[str, Any]:
        """Run the worker to its end and return its outcome, or raise what became of it."""
        expired = threading.Event()
        output: deque[str] = deque(maxlen=LAST_LINES)
        with _process(self._command()) as process:
            timer = threading.Timer(timeout_s, _expire, (process, expired))
            timer.start()
            try:
                for line in process.stdout or ():
                    if not _reported(line, progress):
                        output.append(line.rstrip())
                code = process.wait()
            finally:
                timer.cancel()
        if expired.is_set():
            raise BuildError(f"{self.spec.onnx}: the build took longer than {timeout_s:g} s and was stopped")
        return self._result(code, list(output))

    def _command(self) -> list[str]:
        paths = (self.spec.onnx.resolve(), self.plan.resolve(), self.log, self.outcome)
        return [sys.executable, "-m", WORKER, *map(str, paths), *self.spec.targets]

    def _result(self, code: int, output: list[str]) -> dict[str, Any]:
        messages = _messages(self.log)
        if code < 0:
            last = " | ".join([text for _, text in messages[-LAST_LINES:]] + output)
            name = signal.Signals(-code).name + (", out of memory?" if -code == signal.SIGKILL else "")
            raise BuildError(
                f"{self.spec.onnx}: TensorRT-RTX's builder crashed ({name}); its last words: {_short(last)}"
            )
        if code == OutputError.exit_code:
            raise OutputError(f"{self.plan.parent}: cannot be written ({_short(' | '.join(output))}); free some space")
        if not self.outcome.is_file():
            raise BuildError(f"{self.spec.onnx}: TensorRT-RTX's builder ended early: {_short(' | '.join(output))}")
        outcome: dict[str, Any] = json.loads(self.outcome.read_text(encoding="utf-8"))
        if "refusals" in outcome:
            return outcome
        if "parse_errors" in outcome:
            raise ModelError(f"{self.spec.onnx}: {_parse_reason(outcome['parse_errors'])}")
        if not outcome["built"]:
            raise BuildError(f"{self.spec.onnx}: TensorRT-RTX cannot build it: {_build_reason(messages)}")
        return outcome


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="trtq-rtx-") as folder:
        yield Path(folder)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": _python_path()},
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _python_path() -> str:
    # The worker must find this very package, installed or not.
    package = find_spec("trtq")
    assert package is not None and package.origin is not None
    return os.pathsep.join([str(Path(package.origin).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _expire(process: subprocess.Popen[str], expired: threading.Event) -> None:
    expired.set()
    process.kill()


def _reported(line: str, progress: Progress | None) -> bool:
    if not line.startswith('{"trtq_progress"'):
        return False
    phase, step, steps = json.loads(line)["trtq_progress"]
    if progress is not None:
        progress(phase, step, steps)
    return True


def _messages(log: Path) -> list[tuple[str, str]]:
    if not log.is_file():
        return []
    parts = _MESSAGE.split(log.read_text(encoding="utf-8", errors="replace"))
    return list(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def _log(record: BuildRecord, log: Path) -> str:
    return record.header() + "\n" + log.read_text(encoding="utf-8", errors="replace")


def _parse_reason(errors: list[dict[str, Any]]) -> str:
    if not errors:
        return "TensorRT-RTX cannot parse it, and does not say why"
    first = errors[0]
    reason = _telling(first)
    return f"TensorRT-RTX does not take node '{first['node']}' ({first['operator']}){f': {reason}' if reason else ''}"


def _refusal(error: dict[str, Any]) -> str:
    """Return a refusal in words: the operator, and the parser's reason where it gives one."""
    reason = _telling(error)
    return f"TensorRT-RTX does not take {error['operator']}{f': {reason}' if reason else ''}"


def _telling(error: dict[str, Any]) -> str:
    """Return the parser's reason without its noise, empty where it says nothing."""
    lines = [line for line in error["reason"].splitlines() if not any(noise in line for noise in NOISE)]
    reason = " ".join(lines)
    return "" if reason in ("", "false") else _short(reason)


def _written(network: onnx.ModelProto, error: dict[str, Any]) -> str:
    """Return the tensor that a refused node writes; the node's own name where the node is not in the main graph."""
    index: int = error["index"]
    nodes = network.graph.node
    if 0 <= index < len(nodes) and nodes[index].op_type == error["operator"] and nodes[index].output:
        return str(nodes[index].output[0])
    return str(error["node"])


def _build_reason(messages: list[tuple[str, str]]) -> str:
    errors = [text for severity, text in messages if severity in ("ERROR", "INTERNAL_ERROR")]
    telling = [text for text in errors if not any(noise in text for noise in NOISE)]
    return _short(telling[0]) if telling else "it does not say why"


def _short(text: str) -> str:
    return onnx_file.one_line(text, 500) or "none"
