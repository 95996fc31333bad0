"""The worker half of `child`: takes a request, does it on a deep stack, leaves an outcome, ends with its parent."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from trtq.errors import OutputError

REQUEST_NAME = "request.json"
OUTCOME_NAME = "outcome.json"
LOG_NAME = "log"
PROGRESS_KEY = "trtq_progress"
# Deep chains recurse in builders: 3000 pointwise nodes overflow TensorRT-RTX's usual 8 MiB.
STACK_BYTES = 512 * 2**20
FAILED = 1

Work = Callable[[Mapping[str, Any], IO[str]], Mapping[str, Any]]


def serve(work: Work) -> NoReturn:
    """Do `work(request, log)` for the folder on the command line and write the outcome that it returns.

    Leaves without the vendor library's own clean-up: it may crash after a good build. What `work` raises becomes the
    last line of the output; an `OSError` says that something cannot be written.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_work, args=(work, Path(sys.argv[1])))
    thread.start()
    thread.join()
    _leave(0)


def tell(phase: str, step: int, steps: int) -> None:
    """Tell the parent that `phase` has done `step` of its `steps`."""
    sys.stderr.write(json.dumps({PROGRESS_KEY: [phase, step, steps]}) + "\n")
    sys.stderr.flush()


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has had resident so far, None where /proc does not tell."""
    # Not getrusage: its maximum is inherited from the parent that this process was forked from.
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def _work(work: Work, folder: Path) -> None:
    try:
        request = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
        # After the imports: what lies in a user's folder must not be taken for a module.
        os.chdir(request.get("network_folder", folder))
        with (folder / LOG_NAME).open("w", encoding="utf-8", errors="replace") as log:
            try:
                outcome = work(request, log)
            except Exception:
                log.write(traceback.format_exc())
                raise
        (folder / OUTCOME_NAME).write_text(json.dumps(outcome), encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        _leave(OutputError.exit_code)
    except Exception as error:  # whatever the vendor's bindings raise: the parent says it in one sentence
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _leave(FAILED)


def _leave(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    # The parent holds the other end of stdin: it closes when the parent dies, however it dies.
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
