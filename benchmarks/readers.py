"""Every file of ../shared/data/engines through trtq's readers, against a recount of the files themselves.

Layer files: layers, tensors by dtype, leftover conversions and bytes, next to `benchmarks/recount.py`'s; profiles: each
row's time on its layer; times, logs and metadata: read, and the figures that the file states found. What holds none of
these (licences, a help text, a calibration cache, another tool's log) has to be refused in one sentence.

    python -m benchmarks.readers
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks import recount
from benchmarks.fuzzed_readers import ENGINES, layer_totals, same
from benchmarks.recording import record
from trtq.errors import ModelError
from trtq.layers import read, trtexec_log, trtexec_times

KNOWN_CONVERSIONS = {
    "trt8-resnet18-a100/qat.graph.json": 10,
    "trt8-resnet18-a100/qat-residual.graph.json": 3,
    "trt8-resnet18-a100/qat-residual-qgap.graph.json": 1,
    "trt8-mobilenetv2-titanrtx/qat.graph.json": 17,
    "trt8-mobilenetv2-titanrtx/qat-residual.graph.json": 2,
}
NOT_THESE = ("licenses/", "calibration/", "-help.txt", "compare-int8-fp16.log")


def main() -> None:
    files = {str(path.relative_to(ENGINES)): path for path in sorted(ENGINES.glob("*/*")) if path.is_file()}
    rows = {name: row(name, path) for name, path in files.items()}
    wrong = sorted(name for name, one in rows.items() if not one["agrees"])
    result = {"files": len(rows), "agree": len(rows) - len(wrong), "wrong": wrong, "by_file": rows}
    record("readers", "python -m benchmarks.readers", result)


def row(name: str, path: Path) -> dict[str, Any]:
    """Return what a file reads as, and whether that agrees with the recount."""
    if any(part in name for part in NOT_THESE):
        return refused(path)
    if name.endswith((".graph.json", "layers.json")):
        return layer_file(name, path)
    if name.endswith(".profile.json"):
        return profile(path)
    if name.endswith(".timing.json"):
        return times(path)
    return metadata(path) if name.endswith(".metadata.json") else log(path)


def layer_file(name: str, path: Path) -> dict[str, Any]:
    found, wanted = layer_totals(path), recount.layers(json.loads(path.read_text()))
    known = KNOWN_CONVERSIONS.get(name, found["conversions"])
    agrees = wanted is not None and same(found, wanted) and found["conversions"] == known
    return {"is": "layers", "agrees": agrees, **found}


def profile(path: Path) -> dict[str, Any]:
    graph = read(path.with_name(path.name.replace(".profile.", ".graph.")), path)
    wanted = recount.profile(json.loads(path.read_text())) or {}
    timed = sum(layer.time_us is not None for layer in graph.layers)
    total_ms = (graph.signals.time_us or 0.0) / 1000
    agrees = timed == len(graph.layers) == wanted["rows"] and math.isclose(total_ms, wanted["sum_ms"], rel_tol=1e-9)
    return {"is": "profile", "agrees": agrees, "rows": timed, "sum_ms": round(total_ms, 6)}


def times(path: Path) -> dict[str, Any]:
    found = trtexec_times.read_times(path)
    rows = json.loads(path.read_text())
    agrees = all(
        len(ours) == len(rows) and math.isclose(sum(ours) / 1000, math.fsum(one[key] for one in rows), abs_tol=1e-6)
        for ours, key in ((found.latency_us, "latencyMs"), (found.compute_us, "computeMs"))
    )
    return {"is": "times", "agrees": agrees, "queries": len(rows)}


def metadata(path: Path) -> dict[str, Any]:
    found, document = trtexec_log.read_log(path), json.loads(path.read_text())
    if isinstance(document, list):
        return {"is": "device", "agrees": found.device == document[0]["Name"]}
    summary = document.get("performance_summary", {})
    latency = found.metrics.get("Latency")
    agrees = found.throughput_qps == summary.get("Throughput")
    agrees &= (None if latency is None else latency.mean_ms) == (summary["Latency"][2] if summary else None)
    return {"is": "metadata", "agrees": agrees, "throughput_qps": found.throughput_qps}


def log(path: Path) -> dict[str, Any]:
    found, wanted = trtexec_log.read_log(path), recount.log(path.read_text())
    latency = found.metrics.get("Latency")
    ours = {"throughput_qps": found.throughput_qps, "latency_mean_ms": latency and latency.mean_ms}
    table = table_rows(path)
    layers = len(read(path).layers) if table else 0
    version = ".".join(map(str, found.version))
    return {
        "is": "log",
        "agrees": ours == wanted and layers == table,
        "tensorrt": version,
        **ours,
        "table_rows": layers,
    }


def table_rows(path: Path) -> int:
    """Count the lines between `Layers:` and the blank one before `Bindings:`."""
    lines = path.read_text().split("\n")
    starts = [number for number, line in enumerate(lines) if line.endswith("[I] Layers:")]
    return lines.index("", starts[0]) - starts[0] - 1 if starts else 0


def refused(path: Path) -> dict[str, Any]:
    try:
        read(path)
    except ModelError as error:
        return {"is": "none of these", "agrees": "\n" not in str(error)}
    return {"is": "layers, though it holds none", "agrees": False}


if __name__ == "__main__":
    main()
