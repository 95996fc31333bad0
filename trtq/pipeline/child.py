"""Torch stages run as commands of their own in a child process: the parent never loads torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from trtq.errors import TrtqError

INTERRUPTED = 130
# Every library that torch computes with reads one of these once, at start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# Tells the command line in the child that its parent speaks of interrupts.
CHILD_VARIABLE = "TRTQ_CHILD"


class StageError(TrtqError):
    """A stage that failed in its own process and has said why there."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def run_command(arguments: Sequence[str], *, threads: int) -> dict[str, Any]:
    """Run `trtq ARGUMENTS --json` in a child with a fixed thread count and return its facts; its progress is ours.

    Raises `StageError` with the child's exit code, `KeyboardInterrupt` when the child was interrupted.
    """
    environment = {**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}, CHILD_VARIABLE: "1"}
    command = [sys.executable, "-m", "trtq", *arguments]
    process = None
    # A terminal interrupts both. Here it waits until there is a child to end; the child inherits that, and waits until
    # its command line can handle an interrupt: at its start it would be a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        output, _ = process.communicate()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait()
        raise
    code = process.returncode
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        raise TrtqError(f"stage '{arguments[0]}' was killed by {signal.Signals(-code).name}; is there enough memory?")
    if code:
        raise StageError(code)
    facts: dict[str, Any] = json.loads(output)
    return facts
