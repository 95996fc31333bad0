"""The table of modes as the page shows it: one column a mode, sections by where their figures come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtq.bench import BenchResult, Verdict, compare, differences
from trtq.report import wording
from trtq.report.data import AS_EXPORTED, NATIVE, ModeRow, ReportData, accuracies
from trtq.report.wording import MISSING

CPU_BACKENDS = ("ort", "ort-native")
CPU_REMARK = "ONNX Runtime on a CPU: a GPU’s speed differs, in what Q/DQ costs there as in what int8 gains."
NOT_RUN = "not run"
NOT_BENCHMARKED = "not benchmarked"
SIGNALS = ("layers", "int8_share", "conversions", "double_writes", "requantizes", "float_writes")
WITHOUT_BEFORE = ("layers", "int8_share")
LATENCIES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0))


@dataclass(frozen=True)
class Cell:
    """A figure, what stood in its place before scales were unified, and its change against the first mode."""

    text: str
    before: str = ""
    change: str = ""
    plain: bool = False


@dataclass(frozen=True)
class Line:
    """One figure of every mode."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Lines of one origin: `tags` say which, `where` on what machine, `remark` what must be known to read them."""

    title: str
    tags: tuple[str, ...]
    lines: tuple[Line, ...]
    where: str = ""
    remark: str = ""


def sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections that a recipe has figures for; speed is always there, if only to say that there is none."""
    rows = data.modes
    found = (
        _accuracy(rows),
        *_speeds(rows, data.benches),
        _size(rows),
        *_engine(rows),
        *_predicted(rows),
        _build(rows),
    )
    return tuple(section for section in found if section.lines)


def machine_name(machine: Mapping[str, Any], backend: str) -> str:
    """Return what ran a benchmark, by the name that people buy it under: the GPU, the Jetson or the CPU."""
    gpus = machine.get("gpus") or ()
    if backend in CPU_BACKENDS or not gpus:
        return " ".join(str(machine.get("cpu") or "a machine that was not recorded").split())
    jetson = machine.get("jetson") or {}
    return str(jetson.get("model") or gpus[0].get("name") or "a GPU without a name")


def _accuracy(rows: Sequence[ModeRow]) -> Section:
    measured = accuracies(rows)
    metrics = dict.fromkeys(metric for one in measured for metric in one)
    lines = [Line(metric, tuple(_accuracy_cell(measured, one, metric) for one in measured)) for metric in metrics]
    return Section("Accuracy", ("measured", "ONNX Runtime"), tuple(lines))


def _accuracy_cell(measured: Sequence[Mapping[str, float]], own: Mapping[str, float], metric: str) -> Cell:
    return Cell(wording.percent(own.get(metric), 2), change=_points(measured, own, metric))


def _points(measured: Sequence[Mapping[str, float]], own: Mapping[str, float], metric: str) -> str:
    """Return the change against the first mode in points of a percent, "" for the first mode itself."""
    first = measured[0]
    compared = metric.removesuffix(NATIVE) + AS_EXPORTED if metric.endswith(NATIVE) else metric
    if own is first or metric not in own or compared not in first:
        return ""
    points = round((own[metric] - first[compared]) * 100, 2) or 0.0
    return wording.signed(f"{points:.2f}", points)


def _speeds(rows: Sequence[ModeRow], benches: Mapping[str, Sequence[BenchResult]]) -> Iterator[Section]:
    taken: dict[tuple[str, str, int], dict[str, BenchResult]] = {}
    for mode, results in benches.items():
        for one in results:
            taken.setdefault((one.backend, machine_name(one.machine, one.backend), one.batch), {})[mode] = one
    for (backend, machine, batch), by_mode in taken.items():
        yield _speed(rows, backend, f"{machine}, batch {batch}", by_mode)
    if not taken and rows:
        missing = Line("throughput, latency", (Cell(NOT_BENCHMARKED, plain=True),) * len(rows))
        yield Section("Speed", (), (missing,), remark="No engine of this recipe has been timed; trtq bench does it.")


def _speed(rows: Sequence[ModeRow], backend: str, where: str, by_mode: Mapping[str, BenchResult]) -> Section:
    found = [by_mode.get(row.mode) for row in rows]
    base = next((one for one in found if one is not None), None)
    lines = [
        Line("images a second", tuple(_run(one, "" if one is None else _rate(one)) for one in found)),
        *(Line(f"latency {name}, ms", tuple(_latency(one, share) for one in found)) for name, share in LATENCIES),
        Line("runs", tuple(_run(one, "" if one is None else _runs(one)) for one in found)),
    ]
    if base is not None and len(by_mode) > 1:
        lines.insert(1, Line(f"times as fast as {base.name}", tuple(_against(base, one) for one in found)))
    dialects = dict.fromkeys(one.dialect or one.backend for one in by_mode.values())
    notes = dict.fromkeys(note for one in by_mode.values() for note in one.notes)
    is_said = backend not in CPU_BACKENDS or any("GPU" in note for note in notes)
    remarks = (*(() if is_said else (CPU_REMARK,)), *(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes))
    return Section("Speed", ("measured", *dialects), tuple(lines), where, " ".join(remarks))


def _rate(one: BenchResult) -> str:
    return _or_dash(one.throughput_per_s, 1)


def _against(base: BenchResult, one: BenchResult | None) -> Cell:
    if one is None or one is base:
        return _run(one, MISSING)
    if differences(base, one):
        return Cell("not comparable", plain=True)
    speed = compare(base, one)
    if speed.verdict is Verdict.NO_DIFFERENCE_SHOWN:
        return Cell(speed.verdict.value, plain=True)
    return Cell(f"{1 / speed.ratio:.2f}", change=f"{1 / speed.high:.2f} to {1 / speed.low:.2f}")


def _latency(one: BenchResult | None, percent: float) -> Cell:
    return _run(one, "" if one is None else _or_dash(one.percentile_us(percent) / 1000, 3))


def _runs(one: BenchResult) -> str:
    return wording.figure(len(one.times_us) or (one.stated.queries if one.stated else None))


def _run(one: BenchResult | None, text: str) -> Cell:
    return Cell(NOT_RUN, plain=True) if one is None else Cell(text)


def _or_dash(value: float, digits: int) -> str:
    return wording.figure(value if math.isfinite(value) else None, digits)


def _size(rows: Sequence[ModeRow]) -> Section:
    lines = [_line("ONNX file", rows, [wording.bytes_text(row.onnx_bytes) for row in rows])]
    if any(row.engine_bytes is not None for row in rows):
        lines.append(_line("engine", rows, [wording.bytes_text(row.engine_bytes) for row in rows]))
    return Section("Size", ("measured",), tuple(lines))


def _engine(rows: Sequence[ModeRow]) -> Iterator[Section]:
    origins = tuple(dict.fromkeys(str(row.origin) for row in rows if row.origin))
    if not origins:
        return
    lines = [Line(_spaced(name), tuple(_signal(row, name) for row in rows)) for name in SIGNALS]
    if len(origins) > 1:
        lines.insert(0, _line("read from", rows, [row.origin or MISSING for row in rows]))
    known = tuple(line for line in lines if any(cell.text != MISSING for cell in line.cells))
    yield Section("Layers", origins, known)


def _signal(row: ModeRow, name: str) -> Cell:
    value = getattr(row.signals, name) if row.signals else None
    text = wording.percent(value) if name == "int8_share" else wording.figure(value)
    before = getattr(row.naive_signals, name) if row.naive_signals and name not in WITHOUT_BEFORE else None
    return Cell(text, before="" if before is None else wording.figure(before))


def _predicted(rows: Sequence[ModeRow]) -> Iterator[Section]:
    # Where the layers themselves are predicted, their conversions are among the signals already.
    if any(row.predicted_conversions is not None and row.origin != "predicted" for row in rows):
        line = _line("conversions", rows, [wording.figure(row.predicted_conversions) for row in rows])
        yield Section("TensorRT", ("predicted",), (line,))


def _build(rows: Sequence[ModeRow]) -> Section:
    if all(row.build_s is None for row in rows):
        return Section("Build", (), ())
    return Section("Build", ("measured",), (_line("seconds", rows, [wording.figure(row.build_s, 1) for row in rows]),))


def _line(name: str, rows: Sequence[ModeRow], texts: Sequence[str]) -> Line:
    return Line(name, tuple(Cell(text) for _, text in zip(rows, texts, strict=True)))


def _spaced(signal: str) -> str:
    return signal.replace("_", " ")
