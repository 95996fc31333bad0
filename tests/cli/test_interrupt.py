"""An interrupt ends the command line with its own exit code and one sentence, wherever it strikes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SENTENCE = "trtq: interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(
    "strikes",
    [
        "os.kill(os.getpid(), signal.SIGINT)",
        # As in the making of a dataclass, while a command imports what it needs.
        "exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)')",
    ],
)
def test_the_exit_code_is_130_wherever_it_strikes(strikes: str, tmp_path: Path) -> None:
    (tmp_path / "struck.py").write_text(
        "import os, signal\n"
        "from trtq import cli\n"
        f"@cli.app.command()\ndef struck() -> None:\n    {strikes}\n    signal.pause()\n"
        "cli.main()\n"
    )
    # As a module, which is how stages start: a script's end does not show what differs.
    done = subprocess.run(
        [sys.executable, "-m", "struck", "struck"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, SENTENCE)


def test_one_that_was_held_back_is_handled(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "trtq", "--help"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (process.returncode, said) == (130, SENTENCE)
