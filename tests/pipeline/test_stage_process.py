"""A stage in a process of its own, and what an interrupt does to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from trtq.pipeline import child


def test_an_interrupt_at_its_start_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Run by the interpreter before anything of trtq's: what a terminal's Ctrl-C does to a child that has just begun.
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    with pytest.raises(KeyboardInterrupt):
        child.run_command(["rule", "TQ101"], threads=1)
    assert capfd.readouterr().err == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_stage_that_fails_keeps_its_exit_code() -> None:
    with pytest.raises(child.StageError) as failed:
        child.run_command(["rule", "TQ999"], threads=1)
    assert failed.value.exit_code == 2
