"""Progress of a build: a bar on a terminal, a few plain lines anywhere else, never on standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile_networks import plain, save
from tests.conftest import run_trtq
from trtq.cli.progress import phases, progress_bars

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")


def test_a_terminal_shows_the_builders_phases(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "trtq", "build", str(save(tmp_path / "net.onnx", plain())), "--backend", "rtx"]
    process = subprocess.Popen(command, stderr=end, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"})
    os.close(end)
    shown = b""
    # Reading a terminal whose other end has closed is an error on Linux.
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:
        pass
    output, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 0
    assert b"Building engine" in shown
    assert "━".encode() in shown
    assert b"Building engine" not in output


def test_a_pipe_gets_the_outermost_phase_in_quarters(tmp_path: Path) -> None:
    done = run_trtq("build", save(tmp_path / "net.onnx", plain()), "--backend", "rtx")
    lines = [line for line in done.stderr.splitlines() if line.startswith("  ")]
    assert lines
    assert all(line.startswith("  Building engine: ") for line in lines)
    assert len(lines) <= 5


def test_phases_without_steps_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as bars:
        progress = phases(bars)
        progress("Empty", 0, 0)
        progress("Outer", 1, 2)
        progress("Inner", 1, 1)
        progress("Outer", 2, 2)
    assert capsys.readouterr().err.split("\n") == ["  Outer: 1 of 2", "  Outer: 2 of 2", ""]
