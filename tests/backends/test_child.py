"""What a worker may do to itself, and what its parent says about it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

import pytest

from trtq.backends import BuildOptions, Progress, child
from trtq.errors import BuildError, OutputError

NOTHING = BuildOptions()
# What each worker does, as the body of its `work`.
CRASH = "log.write('[ERROR] it hurts here\\n'); log.flush(); import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
GROW = "hoard = []\n    while True: hoard.append(bytearray(b'x' * 2**24))"
SLEEP = "import time; time.sleep(60)"
GRANDCHILD = (
    "import subprocess; one = subprocess.Popen(['sleep', '60'])\n"
    "    open(request['note'], 'w').write(str(one.pid)); one.wait()"
)
DEEP = "import sys; sys.setrecursionlimit(10**6); f = lambda n: n and f(n - 1); f(60000); return {'deep': True}"


class Run(Protocol):
    def __call__(
        self, body: str, options: BuildOptions = NOTHING, progress: Progress | None = None, **request: str
    ) -> child.Outcome: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(
        body: str, options: BuildOptions = NOTHING, progress: Progress | None = None, **request: str
    ) -> child.Outcome:
        (tmp_path / "a_worker.py").write_text(
            f"from trtq.backends import worker\n\n\ndef work(request, log):\n    {body}\n\n\nworker.serve(work)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        job = child.Job("a_worker", "Vendor", Path("net.onnx"), tmp_path / "out", request, options)
        with child.scratch() as folder:
            return child.run(job, folder, progress)

    return run


def test_request_in_outcome_back(run: Run) -> None:
    seen: list[tuple[str, int, int]] = []
    body = "worker.tell('Parsing', 1, 2); log.write('[INFO] hello\\n[ERROR] cudaError 35\\n[ERROR] two\\nlines')\n"
    outcome = run(body + "    return {'sum': request['a'] + 'b'}", progress=lambda *step: seen.append(step), a="a")
    assert outcome.facts == {"sum": "ab"}
    assert outcome.messages[0] == ("INFO", "hello")
    assert outcome.reason == "two lines"
    assert seen == [("Parsing", 1, 2)]


def test_crash_is_told_with_the_last_words(run: Run) -> None:
    with pytest.raises(BuildError, match=r"net\.onnx: Vendor's builder crashed \(SIGSEGV\); its last words: it hurts"):
        run(CRASH)


def test_what_it_raises_is_one_sentence(run: Run) -> None:
    with pytest.raises(BuildError, match=r"^net\.onnx: Vendor's builder ended early: ValueError: no$"):
        run("raise ValueError('no')")


def test_what_it_cannot_write(run: Run) -> None:
    with pytest.raises(OutputError, match=r"out: cannot be written .*No space left"):
        run("raise OSError(28, 'No space left on device')")


def test_memory_limit(run: Run) -> None:
    with pytest.raises(BuildError, match="needed more than 300 MiB and was stopped"):
        run(GROW, BuildOptions(memory_limit_mib=300, timeout_s=30))


def test_memory_that_is_free_is_the_limit_where_none_is_set(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable:     204800 kB\n")
    monkeypatch.setattr(child, "MEMORY_INFO", tmp_path / "meminfo")
    with pytest.raises(BuildError, match="nearly all of the 200 MiB that were free"):
        run(GROW, BuildOptions(timeout_s=30))


def test_time_limit_ends_what_the_worker_started_too(run: Run, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with pytest.raises(BuildError, match=r"longer than 1\.5 s and was stopped"):
        run(GRANDCHILD, BuildOptions(timeout_s=1.5), note=str(note))
    status = Path(f"/proc/{note.read_text()}/stat")
    deadline = time.monotonic() + 5
    while status.is_file() and " Z " not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.is_file() or " Z " in status.read_text()


def test_an_exception_here_ends_it(run: Run) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run("worker.tell('a', 0, 1); " + SLEEP, progress=interrupt)
    assert time.monotonic() - started < 10


def test_the_stack_is_deep(run: Run) -> None:
    assert run(DEEP).facts == {"deep": True}


def test_resident_memory_counts_descendants() -> None:
    assert child.resident_mib(os.getpid()) > 10
    assert child.resident_mib(2**22 + 1) == 0.0
