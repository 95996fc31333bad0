"""A real benchmark on this processor: four modes of two recipes in turn, three times, each time in a fresh process.

`trtq bench RECIPE --mode fp32,fp16,ptq,qat --backend ort-native --cpu-time`, one thread, on the shipped recipes, built
as they are and for ONNX Runtime's native form. Processor time is taken, which other work on the machine lengthens less
than the wall's; the load average stands beside it. The claim is
that three processes give the same verdict for every pair of modes, at the margin below which a difference is not
called one: placement in memory alone makes one engine a few percent faster or slower from process to process, so the
margin is wider than `trtq bench`'s own. Verdicts at that one are recorded too.

These are times of ONNX Runtime on a processor; a GPU's differ. FP16 is no faster there by nature: ONNX Runtime casts
to float, computes in float kernels and casts back.

    python -m benchmarks.bench_ort
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import networks
from benchmarks.recording import record, trtq
from trtq.bench.compare import MARGIN
from trtq.bench.store import BenchRun, load, pairs

MODES = "fp32,fp16,ptq,qat"
PROCESSES = 3
DURATION_S = {"mobilenet_v2-digits": 4, "yolov7-tiny-digits": 6}
# The smallest difference that counts here.
CLAIM_MARGIN = 0.05
# Of each engine's raw times so many are kept, evenly spaced: all rounds are there, and the file stays below 1 MB.
KEPT_TIMES = 1500
SENTENCE = "These are times of ONNX Runtime on a processor; a GPU's differ."


def main() -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: network(name, Path(folder)) for name in networks.DEMOS}
    result = {
        "holds": {f"{name}: three processes, the same verdicts": one["same"] for name, one in found.items()},
        "sentence": SENTENCE,
        "margin": CLAIM_MARGIN,
        "networks": found,
        "seconds": round(time.perf_counter() - started, 1),
    }
    for name, one in found.items():
        print(name, *(f"{pair}: {' | '.join(words)}" for pair, words in one["verdicts"].items()), sep="\n  ")
    print(result["holds"])
    record("bench_ort", "python -m benchmarks.bench_ort", result)


def network(name: str, work: Path) -> dict[str, Any]:
    """Build a recipe's modes, and benchmark them in three processes, one after the other."""
    path = networks.demo(name, work)
    runs = [benchmarked(path) for _ in range(PROCESSES)]
    verdicts = {margin: verdicts_of(runs, margin) for margin in (CLAIM_MARGIN, MARGIN)}
    return {
        "verdicts": verdicts[CLAIM_MARGIN],
        "same": all(len(set(words)) == 1 for words in verdicts[CLAIM_MARGIN].values()),
        f"verdicts_at_{100 * MARGIN:g}_percent": verdicts[MARGIN],
        "runs": [plain(run) for run in runs],
    }


def benchmarked(path: Path) -> BenchRun:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "run.json"
        duration = str(DURATION_S[path.stem])
        wishes = ("--mode", MODES, "--backend", "ort-native", "--cpu-time", "--duration", duration, "-o", target)
        trtq("bench", path, *wishes)
        return load(target)


def verdicts_of(runs: list[BenchRun], margin: float) -> dict[str, list[str]]:
    """Return what each process says of every pair of modes."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for one in pairs(run.results, margin):
            found.setdefault(f"{one.candidate} against {one.baseline}", []).append(one.words)
    return found


def plain(run: BenchRun) -> dict[str, Any]:
    """Return a run's figures, its comparisons, clocks and raw times, in tenths of a microsecond."""
    document = run.to_json()
    return {
        "when": run.when,
        "options": document["options"],
        "readings": [document["readings"][0], document["readings"][-1]],
        "pairs": document["pairs"],
        "engines": {
            one.name: {
                "figures": {key: value and round(value, 2) for key, value in row["figures"].items()},
                "intervals": {key: [end and round(end, 2) for end in ends] for key, ends in row["intervals"].items()},
                "notes": row["notes"],
                "rounds": len(one.rounds),
                "runs": len(one.times_us),
                "times_us": [round(value, 1) for value in one.times_us[:: 1 + len(one.times_us) // KEPT_TIMES]],
            }
            for one, row in zip(run.results, document["results"], strict=True)
        },
    }


if __name__ == "__main__":
    main()
