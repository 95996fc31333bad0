"""Every log and times file in ../shared/data/engines gives the throughput and the percentiles that it states.

What a file states is recounted here without trtq's readers: a log's summary by searching its text, a times file's by
sorting its queries behind the warm-up, and against the summary of the log beside it. Percentiles are ranked as
trtexec's reporting.cpp ranks them. A file that measured nothing has to be refused.

    python -m benchmarks.bench_logs
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import ROOT, record
from trtq.bench import BenchResult, ingest
from trtq.errors import ModelError

ENGINES = ROOT.parent / "shared" / "data" / "engines"
WARM_UP_MS = 200  # of every run there, as its log says
TOLERANCE = 2e-5  # six digits are printed, and trtexec adds up in single precision
PERCENTS = {1: (99,), 3: (90, 95, 99)}
SUMMARY = re.compile(r"\[I\] Throughput: (\S+) qps")
LATENCY = re.compile(r"\[I\] Latency: (.*)")
VALUE = re.compile(r"(median|percentile\((\d+)%\)) = (\S+) ms")
Figures = dict[str, float]


def main() -> None:
    files = {str(path.relative_to(ENGINES)): checked(path) for path in sorted(ENGINES.rglob("*")) if measures(path)}
    holds = {
        "every file that measured gives what it states": all(one["agrees"] for one in files.values()),
        "at least 7 files of times and 4 logs among them": sum(one["is"] == "times" for one in files.values()) >= 7
        and sum(one["is"] == "log" and bool(one["stated"]) for one in files.values()) >= 4,
    }
    for name, one in files.items():
        print(f"{'ok ' if one['agrees'] else 'NOT'} {name}: {one['is']}, {one['stated'] or 'nothing measured'}")
    print(holds)
    record("bench_logs", "python -m benchmarks.bench_logs", {"holds": holds, "files": files})


def measures(path: Path) -> bool:
    """Tell whether a file is to be checked: a log, times, or trt-engine-explorer's form of a log."""
    return path.is_file() and kind(path) is not None


def kind(path: Path) -> str | None:
    if path.name.endswith(".timing.json"):
        return "times"
    if path.name.endswith(".metadata.json"):
        return "metadata" if isinstance(json.loads(path.read_text()), dict) else None
    if path.suffix == ".log":
        return "log"
    return "log" if path.suffix == ".txt" and "&&&& RUNNING" in path.read_text(errors="replace") else None


def _without_folder(error: ModelError) -> str:
    return str(error).replace(f"{ENGINES}/", "").split("(")[0].strip()


def checked(path: Path) -> dict[str, Any]:
    """Return what the file states, what trtq reads, and whether these agree."""
    what = kind(path)
    found = {"times": of_times, "metadata": of_metadata, "log": of_log}[str(what)](path)
    try:
        result = ingest.read(path)
    except ModelError as error:
        return {"is": what, "stated": found, "agrees": not found, "refused": _without_folder(error)}
    read = {name: figure(result, name) for name in found}
    agrees = bool(found) and all(math.isclose(found[name], read[name], rel_tol=TOLERANCE) for name in found)
    told = {"is": what, "stated": found, "read": read, "agrees": agrees, "runs": len(result.times_us)}
    if what == "times":
        beside = of_metadata(path.with_name(path.name.replace(".timing.", ".profile.metadata.")))
        told["summary_beside"] = beside
        told["agrees"] = agrees and all(math.isclose(beside[name], found[name], rel_tol=TOLERANCE) for name in beside)
    return told


def figure(result: BenchResult, name: str) -> float:
    return result.throughput_qps if name == "throughput_qps" else result.percentile_us(float(name[1:]))


def of_log(path: Path) -> Figures:
    """Return what a log's summary states, in queries per second and microseconds."""
    text = path.read_text(errors="replace")
    throughput, latency = SUMMARY.search(text), LATENCY.search(text)
    if throughput is None or latency is None:
        return {}
    values = {f"p{percent or 50}": 1000 * float(value) for _, percent, value in VALUE.findall(latency[1])}
    return {"throughput_qps": float(throughput[1]), **values}


def of_metadata(path: Path) -> Figures:
    """Return the same of trt-engine-explorer's lists: min, max, mean, median, percentiles."""
    summary = json.loads(path.read_text()).get("performance_summary", {})
    if not summary.get("Latency"):
        return {}
    _, _, _, median, *rest = summary["Latency"]
    values = {f"p{percent}": 1000 * value for percent, value in zip(PERCENTS[len(rest)], rest, strict=True)}
    return {"throughput_qps": summary["Throughput"], "p50": 1000 * median, **values}


def of_times(path: Path) -> Figures:
    """Return the figures of the queries behind the warm-up."""
    rows = [row for row in json.loads(path.read_text()) if row["startComputeMs"] >= WARM_UP_MS]
    ordered = sorted(row["latencyMs"] for row in rows)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    wall_s = (rows[-1]["endD2hMs"] - rows[0]["startH2dMs"]) / 1000
    single = np.float32  # trtexec ranks in single precision
    above = {p: int((single(1) - single(p) / single(100)) * single(len(ordered))) for p in (90, 95, 99)}
    ranked = {f"p{p}": 1000 * ordered[len(ordered) - 1 - count] for p, count in above.items()}
    return {"throughput_qps": len(rows) / wall_s, "p50": 1000 * median, **ranked}


if __name__ == "__main__":
    main()
