"""Start-up time of `trtq --help` and of each command's help: the median of nine fresh processes each.

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
    medians = {" ".join(["trtq", *words, "--help"]): median_s(words) for words in commands}
    record("startup", "python -m benchmarks.startup", {"runs": RUNS, "median_s": medians})


def median_s(words: list[str]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "trtq", *words, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 3)


if __name__ == "__main__":
    main()
