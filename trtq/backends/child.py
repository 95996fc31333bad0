"""Vendor code in a process of its own: limits, a log, progress, and an end with its parent; a crash is an error here.

The parent's half. A worker is a module whose main calls `worker.serve`; between the two pass a request and an outcome,
both JSON files in a scratch folder, progress lines on the worker's output, and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trtq.backends import BuildOptions, Progress, onnx_file
from trtq.backends.worker import LOG_NAME, OUTCOME_NAME, PROGRESS_KEY, REQUEST_NAME
from trtq.errors import BuildError, OutputError

LAST_LINES = 5
REASON_CHARACTERS = 500
POLL_S = 0.05
# Of the memory that is free when a build starts, what it may take where nobody set a limit.
FREE_MEMORY_SHARE = 0.9
# Without a driver every error of TensorRT is followed by these: they explain nothing.
NOISE = ("cudaError 35", "Thread context has not been set")
MEMORY_INFO = Path("/proc/meminfo")
_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
_MESSAGE = re.compile(rf"^\[({'|'.join(_SEVERITIES)})\] ", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    worker: its module. vendor: how messages call what runs there. source: the file that messages name. output: what it
    writes, for the message of a full disk. request: what it is given, JSON. options: only the limits are read here.
    """

    worker: str
    vendor: str
    source: Path
    output: Path
    request: Mapping[str, Any]
    options: BuildOptions


@dataclass(frozen=True)
class Outcome:
    """What a worker said at its end, and the messages of the vendor's log as pairs of severity and text."""

    facts: Mapping[str, Any]
    messages: tuple[tuple[str, str], ...]

    @property
    def reason(self) -> str:
        """The first error in the log that explains something, on one line."""
        errors = [text for severity, text in self.messages if severity in ("ERROR", "INTERNAL_ERROR")]
        telling = [text for text in errors if not any(noise in text for noise in NOISE)]
        return short(telling[0]) if telling else "it does not say why"


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for one job's request, log and outcome, which vanishes with the block; raises `OutputError`."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="trtq-build-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(f"{tempfile.gettempdir()}: cannot write here ({error.strerror}); set TMPDIR") from error
    with folder as path:
        yield Path(path)


def log_of(folder: Path) -> str:
    """Return the vendor's log that a job left in its scratch folder, empty where it never came that far."""
    path = folder / LOG_NAME
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def run(job: Job, folder: Path, progress: Progress | None = None) -> Outcome:
    """Run `job` to its end in a process of its own, which never outlives this one or an exception here.

    Raises `BuildError` where the process crashes, ends without an outcome, or crosses a limit of `job.options`, and
    `OutputError` where it cannot write.
    """
    (folder / REQUEST_NAME).write_text(json.dumps(job.request), encoding="utf-8")
    output: deque[str] = deque(maxlen=LAST_LINES)
    with _process([sys.executable, "-m", job.worker, str(folder)]) as process, _Guard(process, job.options) as guard:
        for line in process.stdout or ():
            if not _reported(line, progress):
                output.append(line.rstrip())
        code = process.wait()
    if guard.stopped is not None:
        raise BuildError(f"{job.source}: {guard.stopped}")
    return _outcome(job, folder, code, list(output))


def short(text: str) -> str:
    """Return the text on one line that fits a message."""
    return onnx_file.one_line(text, REASON_CHARACTERS) or "none"


def telling(reason: str) -> str:
    """Return a parser's reason on one line without its noise, empty where it says nothing."""
    text = " ".join(line for line in reason.splitlines() if not any(noise in line for noise in NOISE))
    return "" if text in ("", "false") else short(text)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants, 0.0 where /proc does not tell."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident_mib(int(child)) for child in children)


def free_mib() -> float | None:
    """Return the memory that is free here, None where /proc does not tell."""
    if not MEMORY_INFO.is_file():
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) / 1024 if found else None


class _Guard(threading.Thread):
    """Ends a process that crosses its time or memory limit; `stopped` says why."""

    def __init__(self, process: subprocess.Popen[str], options: BuildOptions) -> None:
        super().__init__(daemon=True)
        self.stopped: str | None = None
        self._process = process
        self._timeout_s = options.timeout_s
        self._limit_mib = options.memory_limit_mib
        self._free_mib = free_mib()
        self._done = threading.Event()

    def __enter__(self) -> _Guard:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look every POLL_S."""
        deadline = time.monotonic() + self._timeout_s
        while not self._done.wait(min(POLL_S, max(deadline - time.monotonic(), 0.0))):
            self.stopped = self._crossed(deadline)
            if self.stopped is not None:
                _kill(self._process)
                return

    def _crossed(self, deadline: float) -> str | None:
        if time.monotonic() >= deadline:
            return f"the build took longer than {self._timeout_s:g} s and was stopped; give it more with --timeout"
        used_mib = resident_mib(self._process.pid)
        if self._limit_mib is not None and used_mib > self._limit_mib:
            return f"the build needed more than {self._limit_mib} MiB and was stopped; give it more with --memory-limit"
        if self._limit_mib is None and self._free_mib is not None and used_mib > FREE_MEMORY_SHARE * self._free_mib:
            return f"the build needed nearly all of the {self._free_mib:.0f} MiB that were free here and was stopped"
        return None


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
        # A terminal's Ctrl-C is the parent's to handle; a group of its own is ended with all that the worker started.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _kill(process)
        process.communicate()


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _python_path() -> str:
    # The worker must find this very package, installed or not.
    package = find_spec("trtq")
    assert package is not None and package.origin is not None
    return os.pathsep.join([str(Path(package.origin).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _reported(line: str, progress: Progress | None) -> bool:
    if not line.startswith(f'{{"{PROGRESS_KEY}"'):
        return False
    phase, step, steps = json.loads(line)[PROGRESS_KEY]
    if progress is not None:
        progress(phase, step, steps)
    return True


def _outcome(job: Job, folder: Path, code: int, output: list[str]) -> Outcome:
    messages = _messages(log_of(folder))
    if code < 0:
        last = " | ".join([text for _, text in messages[-LAST_LINES:]] + output)
        name = signal.Signals(-code).name + (", out of memory?" if -code == signal.SIGKILL else "")
        raise BuildError(f"{job.source}: {job.vendor}'s builder crashed ({name}); its last words: {short(last)}")
    if code == OutputError.exit_code:
        raise OutputError(f"{job.output}: cannot be written ({short(' | '.join(output))}); free some space")
    outcome = folder / OUTCOME_NAME
    if not outcome.is_file():
        raise BuildError(f"{job.source}: {job.vendor}'s builder ended early: {short(' | '.join(output))}")
    return Outcome(json.loads(outcome.read_text(encoding="utf-8")), tuple(messages))


def _messages(log: str) -> list[tuple[str, str]]:
    parts = _MESSAGE.split(log)
    return list(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))
