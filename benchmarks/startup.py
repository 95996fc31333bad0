"""Start-up time of `trtq --help` and of each command's help: the median of nine fresh processes each.

Beside it the bare interpreter's, started in turn with each, so that the ratio tells more than the machine's mood.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.recording import record
from trtq.cli import COMMANDS

RUNS = 9


def main() -> None:
    commands = [[], *([name] for name, _, _ in COMMANDS)]
    pairs = {" ".join(["trtq", *words, "--help"]): _timed(words) for words in commands}
    medians = {name: round(statistics.median(ours for ours, _ in times), 3) for name, times in pairs.items()}
    ratios = {name: round(statistics.median(ours / bare for ours, bare in times), 2) for name, times in pairs.items()}
    raw = {
        name: [{"trtq_s": round(ours, 4), "python_s": round(bare, 4)} for ours, bare in times]
        for name, times in pairs.items()
    }
    result = {"runs": RUNS, "median_s": medians, "of_python": ratios, "raw": raw}
    record("startup", "python -m benchmarks.startup", result)


def _timed(words: list[str]) -> list[tuple[float, float]]:
    """Return the seconds of the command's help and of an interpreter that does nothing, in turn."""
    return [(_seconds("-m", "trtq", *words, "--help"), _seconds("-c", "")) for _ in range(RUNS)]


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
