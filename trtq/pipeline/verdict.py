"""The verdict on a recipe in three lines: what quantizing costs, what the engines do, how fast they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trtq.bench import BenchResult, Speed, Verdict, compare, differences
from trtq.compare import Comparison
from trtq.report.data import ModeRow
from trtq.report.mode_table import CPU_BACKENDS, machine_name

HEADLINE = {"map50_95": "mAP50-95", "top1": "top-1", "map50": "mAP50"}
BEST_FIRST = ("qat", "ptq", "fp16")
Benches = Mapping[str, Sequence[BenchResult]]


def verdict(rows: Sequence[ModeRow], comparisons: Sequence[Comparison], benches: Benches) -> tuple[str, str, str]:
    """Return a line on accuracy, one on the engines and one on speed and size; each says so where nothing is known."""
    by_mode = {row.mode: row for row in rows}
    return _accuracy(by_mode), _engines(by_mode, comparisons), f"{_speed(benches)} {_size(by_mode)}".strip()


def _accuracy(by_mode: Mapping[str, ModeRow]) -> str:
    measured = [row for row in by_mode.values() if row.accuracy]
    if not measured:
        return "Accuracy was not measured."
    first = measured[0]
    metric = next((name for name in HEADLINE if name in first.accuracy), next(iter(first.accuracy)))
    parts = [f"{_spoken(first.mode)} {100 * first.accuracy[metric]:.2f}"]
    for mode in ("ptq", "qat"):
        row = by_mode.get(mode)
        if row is not None and row is not first and metric in row.accuracy:
            change = 100 * (row.accuracy[metric] - first.accuracy[metric])
            parts.append(f"{mode.upper()} {100 * row.accuracy[metric]:.2f} ({_signed(change, 2)} points)")
    words = HEADLINE.get(metric, metric)
    return f"{words}: {', '.join(parts)}; measured with ONNX Runtime on the exported files."


def _engines(by_mode: Mapping[str, ModeRow], comparisons: Sequence[Comparison]) -> str:
    best = by_mode.get("qat") or by_mode.get("ptq")
    if best is None:
        return "No quantized mode has been built; trtq build --mode ptq,qat makes them."
    if best.signals is None:
        return "No engine of this recipe tells its layers, so nothing is known of fusion."
    before, after = best.naive_signals, best.signals
    if before is None:
        return _alone(best)
    if after.double_writes is not None and before.double_writes is not None:
        line = f"One scale a group: tensors written twice {before.double_writes} → {after.double_writes}"
        line += f", float tensors written {before.float_writes} → {after.float_writes}"
    else:
        line = f"One scale a group: conversions {before.conversions} → {after.conversions}"
    if before.traffic_bytes and after.traffic_bytes:
        line += f", activation traffic {_signed(100 * (after.traffic_bytes / before.traffic_bytes - 1), 1)} %"
    trained = next((one for one in comparisons if (one.a, one.b) == ("ptq", "qat")), None)
    same = "; PTQ and QAT run the same kernels" if trained is not None and not trained.differences else ""
    return f"{line} ({best.origin}, against the same quantizers untied){same}."


def _alone(best: ModeRow) -> str:
    assert best.signals is not None
    share = best.signals.int8_share
    int8 = "" if share is None else f", {100 * share:.0f} % of its convolutions and matrix products in int8"
    return f"The {best.mode} engine has {best.signals.layers} layers{int8} ({best.origin})."


def _speed(benches: Benches) -> str:
    """Return what the best quantized mode runs at, against the first mode that ran there; GPUs count before CPUs."""
    timed = [(mode, one) for mode, some in benches.items() for one in some if math.isfinite(one.throughput_per_s)]
    if not timed:
        return "Not benchmarked: no engine of this recipe has been timed."
    backend = min((one.backend in CPU_BACKENDS, one.backend) for _, one in timed)[1]
    runs = {mode: one for mode, one in timed if one.backend == backend}
    mode = next((mode for mode in BEST_FIRST if mode in runs), next(iter(runs)))
    one, (first, base) = runs[mode], next(iter(runs.items()))
    line = f"{_spoken(mode)} runs {one.throughput_per_s:.1f} images a second on {machine_name(one.machine, backend)}"
    if first != mode and not differences(base, one):
        line += f", {_against(compare(base, one), _spoken(first))}"
    return f"{line} ({backend}, measured{'; a GPU’s speed differs' if backend in CPU_BACKENDS else ''})."


def _against(speed: Speed, base: str) -> str:
    if speed.verdict is Verdict.NO_DIFFERENCE_SHOWN:
        return f"no difference to {base} shown"
    return f"{1 / speed.ratio:.2f} times as fast as {base}"


def _size(by_mode: Mapping[str, ModeRow]) -> str:
    best, whole = by_mode.get("qat") or by_mode.get("ptq"), by_mode.get("fp32")
    if best is None or whole is None or not best.onnx_bytes or not whole.onnx_bytes:
        return ""
    return f"The {best.mode} ONNX file is {whole.onnx_bytes / best.onnx_bytes:.1f} times smaller than fp32’s."


def _spoken(mode: str) -> str:
    return "float" if mode == "fp32" else mode.upper() if mode in ("ptq", "qat", "fp16") else mode


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
