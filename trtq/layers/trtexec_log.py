"""The log of trtexec, 8.0 to 11.x: how and on what it measured, and its summary.

Also the JSON that trt-engine-explorer makes of a log (`*.metadata.json`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtq.errors import ModelError
from trtq.layers.source import Source, read_source

Version = tuple[int, ...]
METRICS = ("Latency", "End-to-End Host Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
METADATA_TITLES = {
    "model_options": "Model Options",
    "build_options": "Build Options",
    "inference_options": "Inference Options",
    "device_information": "Device Information",
}
# Metadata lists hold min, max, mean, median, then these.
PERCENTILES_BY_COUNT = {1: (99,), 3: (90, 95, 99)}
_RUNNING = re.compile(
    r"^&&&& (?P<status>RUNNING|PASSED|FAILED) TensorRT\.trtexec(?:\.exe)? "
    r"\[TensorRT v(?P<version>\d{4,6})\](?: \[b\d+\])? # (?P<command>.*)$",
    re.MULTILINE,
)
_LINE = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[(?P<level>[IWEVF])\] ?(?:\[TRT\] )?(?P<text>.*)$")
_SECTION = re.compile(r"=== (?P<title>[^=\n]+) ===\s*$")
_VALUE = re.compile(r"(?P<name>min|max|mean|median|percentile\((?P<percent>[\d.]+)%\)) = (?P<value>\S+) ms")
# Up to 8.6 "Created input binding for ...", later "Input binding for ... is created.".
_INPUT = r"^(?:Created input|Input) binding for .* with dimensions (\d{1,9})(?:x|\b)"
_FLAG_FREE_SINCE_11 = (11,)


@dataclass(frozen=True)
class Metric:
    """One line of trtexec's summary, in milliseconds; percentiles by percent, as many as that version prints."""

    min_ms: float
    max_ms: float
    mean_ms: float
    median_ms: float
    percentiles_ms: Mapping[float, float]


@dataclass(frozen=True)
class Regime:
    """How trtexec measured: what decides whether two of its figures compare; None where the log does not tell."""

    data_transfers: bool | None
    spin_wait: bool | None
    cuda_graph: bool | None
    separate_profile_run: bool | None


# trtexec 11 turned its defaults round.
DEFAULTS_UP_TO_10 = Regime(data_transfers=True, spin_wait=False, cuda_graph=False, separate_profile_run=False)
DEFAULTS_FROM_11 = Regime(data_transfers=False, spin_wait=True, cuda_graph=True, separate_profile_run=True)


@dataclass(frozen=True)
class TrtexecLog:
    """One run of trtexec.

    status: PASSED, FAILED or RUNNING (the log ends before the run did), "" where the file does not tell.
    sections: what the log prints before it measures, as {"Device Information": {"SMs": "108", ...}, ...}.
    metrics: the summary, by trtexec's names ("Latency", "GPU Compute Time", ...); empty where nothing was measured.
    input_batch: the first dimension of the input that it ran on. errors: the lines that trtexec marks as errors.
    """

    status: str
    version: Version
    command: str
    sections: Mapping[str, Mapping[str, str]]
    metrics: Mapping[str, Metric]
    throughput_qps: float | None = None
    queries: int | None = None
    wall_s: float | None = None
    compute_s: float | None = None
    built_s: float | None = None
    engine_mib: float | None = None
    input_batch: int | None = None
    errors: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The GPU's name, "" where the log does not tell."""
        return self.sections.get("Device Information", {}).get("Selected Device", "")

    @property
    def regime(self) -> Regime:
        """How it measured: as the log says, else the defaults of its version with the flags of its command."""
        options = self.sections.get("Inference Options", {})
        if "Data transfers" in options or "Spin-wait" in options:
            return Regime(
                _enabled(options.get("Data transfers")),
                _enabled(options.get("Spin-wait")),
                _enabled(options.get("CUDA Graph")),
                _enabled(options.get("Separate profiling")) if self.version[:1] < _FLAG_FREE_SINCE_11 else True,
            )
        return _default_regime(self.version, frozenset(self.command.split()))


def read_log(path: Path) -> TrtexecLog:
    """Read trtexec's log, or the JSON that trt-engine-explorer made of one; raises `ModelError` for anything else.

    Of a log that holds several runs, the first one counts.
    """
    return logs(read_source(path))[0]


def logs(source: Source) -> tuple[TrtexecLog, ...]:
    """Return every run in a file's content: a log's, or the one that trt-engine-explorer saw; raises `ModelError`."""
    document = source.document
    if is_metadata(document):
        read = _from_device(document[0]) if isinstance(document, list) else _from_metadata(document, str(source.path))
        return (read,)
    return parse_runs(source.text, str(source.path))


def is_log(text: str) -> bool:
    """Tell whether a text is trtexec's log."""
    return any(mark["status"] == "RUNNING" for mark in _RUNNING.finditer(text))


def parse_log(text: str, where: str) -> TrtexecLog:
    """Return what a log tells of its first run; raises `ModelError`, which names `where` the text is from."""
    return parse_runs(text, where)[0]


def parse_runs(text: str, where: str) -> tuple[TrtexecLog, ...]:
    """Return what a log tells of each run in it; raises `ModelError`, which names `where` the text is from."""
    marks = list(_RUNNING.finditer(text))
    places = [place for place, mark in enumerate(marks) if mark["status"] == "RUNNING"]
    if not places:
        raise ModelError(f"{where}: is not a log of trtexec; keep all that it prints, from '&&&& RUNNING' on")
    found = []
    for place, after in zip(places, [*places[1:], len(marks)], strict=True):
        end = marks[after].start() if after < len(marks) else len(text)
        status = marks[min(place + 1, after - 1)]["status"]
        found.append(_parse_run(text[marks[place].end() : end], status, marks[place]))
    return tuple(found)


def _parse_run(text: str, status: str, run: re.Match[str]) -> TrtexecLog:
    sections: dict[str, dict[str, str]] = {}
    lines: list[str] = []
    errors: list[str] = []
    entries = sections.setdefault("", {})
    for raw in text.split("\n"):
        if title := _SECTION.search(raw):
            entries = sections.setdefault(title["title"].strip(), {})
        elif found := _LINE.match(raw):
            line = found["text"]
            lines.append(line)
            errors += [line] * (found["level"] == "E")
            # At the first colon alone: values hold colons too ("Memory Pools: workspace: default, ...").
            key, colon, value = line.partition(":")
            if colon and (not value or value.startswith(" ")):
                entries.setdefault(key.strip(), value.strip())
    summary = sections.get("Performance summary", {})
    everything = {key: value for entries in sections.values() for key, value in entries.items()}
    return TrtexecLog(
        status=status,
        version=_version(run["version"], everything.get("TensorRT version", "")),
        command=run["command"],
        sections=sections,
        metrics={name: metric for name in METRICS if (metric := _metric(summary.get(name, "")))},
        throughput_qps=_number(summary.get("Throughput", ""), "qps"),
        queries=_first_number(r"^Timing trace has (\d+) queries", lines, int),
        wall_s=_number(summary.get("Total Host Walltime", ""), "s"),
        compute_s=_number(summary.get("Total GPU Compute Time", ""), "s"),
        built_s=_first_number(r"^Engine built in (\S+) sec", lines, float),
        engine_mib=_first_number(r"^(?:Created engine with|Loaded engine) size: (\S+) Mi?B", lines, float),
        input_batch=_first_number(_INPUT, lines, int),
        errors=tuple(errors),
    )


def is_metadata(document: Any) -> bool:
    """Tell whether a JSON value is what trt-engine-explorer makes of a log, or of the GPU it ran on."""
    if isinstance(document, list):
        return len(document) == 1 and isinstance(document[0], dict) and "ComputeCapability" in document[0]
    return isinstance(document, dict) and any(isinstance(document.get(key), dict) for key in METADATA_TITLES)


def _from_metadata(document: dict[str, Any], where: str) -> TrtexecLog:
    found = {title: document[key] for key, title in METADATA_TITLES.items() if isinstance(document.get(key), dict)}
    summary = document.get("performance_summary", {})
    if not isinstance(summary, dict):
        raise ModelError(f"{where}: its performance_summary is no group of figures; give trtexec's log")
    return TrtexecLog(
        status="",
        version=(),
        command="",
        sections={title: {str(k): str(v) for k, v in values.items()} for title, values in found.items()},
        metrics={name: metric for name in METRICS if (metric := _metric_of_list(summary.get(name)))},
        throughput_qps=_float(summary.get("Throughput")),
        wall_s=_float(summary.get("Total Host Walltime")),
        compute_s=_float(summary.get("Total GPU Compute Time")),
    )


def _from_device(properties: dict[str, Any]) -> TrtexecLog:
    values = {str(key): str(value) for key, value in properties.items()}
    device = {**values, "Selected Device": values.get("Name", "")}
    return TrtexecLog(status="", version=(), command="", sections={"Device Information": device}, metrics={})


def _version(compact: str, written: str) -> Version:
    """Return (8, 0, 3) for v8003 and (11, 0, 0) for v110000, or what the log writes in full where it does."""
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})+", written):
        return tuple(int(part) for part in written.split("."))
    number = int(compact)
    # Before 10 a version is major * 1000 + minor * 100 + patch, from 10 on major * 10000.
    return (number // 10000, number // 100 % 100, number % 100) if number >= 100000 else (
        number // 1000, number // 100 % 10, number % 100)  # fmt: skip


def _metric(text: str) -> Metric | None:
    found = list(_VALUE.finditer(text))
    values = {one["name"]: value for one in found if (value := _float(one["value"])) is not None}
    if not {"min", "max", "mean", "median"} <= values.keys():
        return None
    of_percent = ((one["percent"], values.get(one["name"])) for one in found if one["percent"])
    percentiles = {key: value for percent, value in of_percent if value is not None and (key := _float(percent))}
    return Metric(values["min"], values["max"], values["mean"], values["median"], percentiles)


def _metric_of_list(values: Any) -> Metric | None:
    numbers = [_float(value) for value in values] if isinstance(values, list) else []
    known = [number for number in numbers if number is not None]
    if len(known) < 4 or len(known) != len(numbers):
        return None
    percents = PERCENTILES_BY_COUNT.get(len(known) - 4, ())
    return Metric(known[0], known[1], known[2], known[3], dict(zip(map(float, percents), known[4:], strict=False)))


def _default_regime(version: Version, flags: Iterable[str]) -> Regime:
    if not version:
        return Regime(None, None, None, None)
    default = DEFAULTS_FROM_11 if version >= _FLAG_FREE_SINCE_11 else DEFAULTS_UP_TO_10
    given = set(flags)
    return Regime(
        _flagged(given, "--includeDataTransfers", "--noDataTransfers", default.data_transfers),
        _flagged(given, "--useSpinWait", "--noSpinWait", default.spin_wait),
        _flagged(given, "--useCudaGraph", "--noCudaGraph", default.cuda_graph),
        _flagged(given, "--separateProfileRun", "", default.separate_profile_run),
    )


def _flagged(given: set[str], on: str, off: str, default: bool | None) -> bool | None:
    if on in given:
        return True
    return False if off in given else default


def _enabled(word: str | None) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(word or "")


def _float(value: Any) -> float | None:
    try:
        return _finite(float(value)) if value is not None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(text: str, unit: str) -> float | None:
    value, _, written_unit = text.partition(" ")
    return _float(value) if written_unit == unit else None


def _first_number(pattern: str, lines: Iterable[str], kind: type[int] | type[float]) -> Any:
    found = next((match[1] for line in lines if (match := re.match(pattern, line))), None)
    number = None if found is None else _float(found)
    return None if number is None else kind(number)
