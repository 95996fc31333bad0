"""What trtexec 8.0 to 11.x leaves behind, its log and its `--exportTimes`, as a BenchResult."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtq.bench.result import BenchResult, Stated
from trtq.errors import ModelError
from trtq.layers import trtexec_log, trtexec_times
from trtq.layers.source import Source, read_source
from trtq.layers.trtexec_log import Metric, TrtexecLog
from trtq.layers.trtexec_times import TrtexecTimes

BACKEND = "trtexec"
US_PER_MS, US_PER_S = 1000.0, 1e6
# What trtexec warms up where it is told nothing.
WARM_UP_MS = 200.0
PARTS = {"compute": "GPU Compute Time", "enqueue": "Enqueue Time", "to_device": "H2D Latency", "to_host": "D2H Latency"}
# How a times file and its log are told to be one run's: trt-engine-explorer's names, and trtq's own.
TIMES_SUFFIXES = (".timing.json", ".times.json")
LOG_SUFFIXES = (".profile.metadata.json", ".metadata.json", ".bench.log", ".log")
_EXPORTED = re.compile(r"--exportTimes=(\S+)")
_PROFILING = re.compile(r"--(?:dump|export)Profile\b")
_DURATION = re.compile(r"([\d.]+)s \(\+ ([\d.]+)ms warm up\)")
_SHAPE = re.compile(r"=(\d+)(?:x\d+)*")


def is_measurement(source: Source) -> bool:
    """Tell whether a file is trtexec's log, its times, or what trt-engine-explorer made of a log."""
    document = source.document
    return trtexec_times.is_times(document) or trtexec_log.is_metadata(document) or trtexec_log.is_log(source.text)


def read(path: Path) -> BenchResult:
    """Return what trtexec measured in a file's first timed run; raises `ModelError` as `results` does."""
    return results(read_source(path))[0]


def results(source: Source) -> tuple[BenchResult, ...]:
    """Return what trtexec measured, a result a timed run: from its log, its times, and both where they lie together.

    A log belongs to the times that its command names (`--exportTimes`), and, if it holds one timed run, to those of its
    own name: `x.log` or `x.profile.metadata.json` to `x.times.json` or `x.timing.json`. Raises `ModelError` for any
    other file, and where nothing was measured.
    """
    path, name = source.path, _stem(source.path)
    if trtexec_times.is_times(source.document):
        return (result(name, _log_beside(path), trtexec_times.times(source)),)
    if not is_measurement(source):
        raise ModelError(f"{path}: is neither a log of trtexec nor what its --exportTimes writes; give one of these")
    if isinstance(source.document, list):
        raise ModelError(f"{path}: describes a GPU and measures nothing; give trtexec's log or its --exportTimes")
    runs = trtexec_log.logs(source)
    timed = [one for one in runs if one.metrics] or runs[:1]
    return tuple(result(name, one, _times_beside(path, one, alone=len(timed) == 1)) for one in timed)


def result(name: str, log: TrtexecLog | None, times: TrtexecTimes | None) -> BenchResult:
    """Return the result of one run of trtexec; queries of the warm-up are left out, as its own summary does.

    Raises `ModelError` where there is neither a time nor a summary.
    """
    options = _options(log)
    if times is None and (log is None or not log.metrics):
        failed = log.errors[0] if log and log.errors else "it built an engine, or was cut short"
        raise ModelError(f"{name}: trtexec measured nothing in this run ({failed}); give the log of a timed run")
    first = 0 if times is None else trtexec_times.first_counted(times, options["warm_up_ms"] * US_PER_MS)
    if times is not None and first == len(times.latency_us):
        raise ModelError(f"{name}: all queries belong to the warm-up; time the engine for longer")
    device = {} if log is None else log.sections.get("Device Information", {})
    return BenchResult(
        name=name,
        backend=BACKEND,
        batch=1 if log is None else _batch(log),
        times_us=() if times is None else times.latency_us[first:],
        options=options,
        machine=_machine(device),
        dialect=_dialect(log),
        parts_us={} if times is None else _parts(times, first),
        wall_s=None if times is None else _wall_s(times, first),
        clocks=_clocks(device),
        stated=None if log is None or not log.metrics else _stated(log),
        notes=_notes(log),
    )


def _notes(log: TrtexecLog | None) -> tuple[str, ...]:
    if log is None:
        return (
            "no log lies beside the times, so nothing tells how and on what it ran; "
            f"{WARM_UP_MS:g} ms of warm-up are left out",
        )
    return () if log.version else ("nothing tells TensorRT's version",)


def _parts(times: TrtexecTimes, first: int) -> dict[str, tuple[float, ...]]:
    found = {
        "compute": times.compute_us,
        "enqueue": trtexec_times.enqueue_us(times),
        "to_device": times.h2d_us,
        "to_host": times.d2h_us,
    }
    return {name: values[first:] for name, values in found.items() if any(values)}


def _wall_s(times: TrtexecTimes, first: int) -> float | None:
    wall_us = trtexec_times.wall_us(times, first)
    return wall_us / US_PER_S if wall_us > 0 else None


def _stated(log: TrtexecLog) -> Stated:
    latency = log.metrics.get("Latency") or log.metrics.get("GPU Compute Time")
    parts = {name: one.median_ms * US_PER_MS for name, title in PARTS.items() if (one := log.metrics.get(title))}
    return Stated(
        throughput_qps=log.throughput_qps,
        mean_us=None if latency is None else latency.mean_ms * US_PER_MS,
        percentiles_us={} if latency is None else _percentiles(latency),
        queries=log.queries,
        min_us=None if latency is None else latency.min_ms * US_PER_MS,
        max_us=None if latency is None else latency.max_ms * US_PER_MS,
        parts_us=parts,
    )


def _percentiles(metric: Metric) -> dict[float, float]:
    told = {percent: value * US_PER_MS for percent, value in metric.percentiles_ms.items()}
    return {50.0: metric.median_ms * US_PER_MS, **told}


def _options(log: TrtexecLog | None) -> dict[str, Any]:
    told = {} if log is None else log.sections.get("Inference Options", {})
    duration = _DURATION.search(told.get("Duration", ""))
    streams = told.get("Inference Streams", told.get("Streams", ""))
    regime = None if log is None else log.regime
    return {
        "warm_up_ms": float(duration[2]) if duration else WARM_UP_MS,
        "duration_s": float(duration[1]) if duration else None,
        "iterations": int(told["Iterations"]) if told.get("Iterations", "").isdecimal() else None,
        "streams": int(streams) if streams.isdecimal() else None,
        "cuda_graph": regime.cuda_graph if regime else None,
        "spin_wait": regime.spin_wait if regime else None,
        "data_transfers": regime.data_transfers if regime else None,
        "profiled": _profiled(log),
    }


def _profiled(log: TrtexecLog | None) -> bool | None:
    """Tell whether the layers were timed in the same run, which slows it; None where nothing tells."""
    if log is None:
        return None
    if log.regime.separate_profile_run:
        return False
    return bool(_PROFILING.search(log.command)) if log.command else None


def _batch(log: TrtexecLog) -> int:
    """Return the batch: of the shapes that were asked for, else the implicit one, else of the input it ran on, else 1.

    The input of an engine of implicit batch has no dimension for it.
    """
    told = log.sections.get("Inference Options", {})
    shapes = told.get("Input inference shapes", told.get("Input inference shape", ""))
    found = _SHAPE.search(shapes)
    if found:
        return max(1, int(found[1]))
    batch = told.get("Batch", "")
    return max(1, int(batch) if batch.isdecimal() else log.input_batch or 1)


def _dialect(log: TrtexecLog | None) -> str:
    if log is None or not log.version:
        return "TensorRT, version untold"
    return f"TensorRT {'.'.join(map(str, log.version))}"


def _machine(device: Mapping[str, str]) -> dict[str, Any]:
    name = device.get("Selected Device")
    if not name:
        return {}
    capability = device.get("Compute Capability", "").replace(".", "")
    memory = re.match(r"\d+", device.get("Device Global Memory", ""))
    sm = f"sm{capability}" if capability else None
    return {"gpus": [{"name": name, "sm": sm, "memory_mib": int(memory[0]) if memory else None}]}


def _clocks(device: Mapping[str, str]) -> dict[str, Any]:
    """Return the application clocks, which are not what the GPU ran at."""
    found: dict[str, Any] = {}
    for name, key in (("gpu_application", "Compute Clock Rate"), ("gpu_memory_application", "Memory Clock Rate")):
        told = re.match(r"[\d.]+", device.get(f"Application {key}", device.get(key, "")))
        if told:
            found[f"{name}_mhz"] = round(1000 * float(told[0]), 3)
    return found


def _stem(path: Path) -> str:
    suffixes = (*TIMES_SUFFIXES, *LOG_SUFFIXES, ".txt", ".json")
    return next((path.name.removesuffix(one) for one in suffixes if path.name.endswith(one)), path.stem)


def _log_beside(path: Path) -> TrtexecLog | None:
    """Return the timed run that a times file is of: the one that names it, else the first of its own name."""
    beside = (path.with_name(_stem(path) + suffix) for suffix in LOG_SUFFIXES)
    runs = [run for one in beside if one.is_file() for run in _timed_runs(one)]
    return next((run for run in runs if _exported(run) == path.name), runs[0] if runs else None)


def _timed_runs(path: Path) -> list[TrtexecLog]:
    try:
        return [run for run in trtexec_log.logs(read_source(path)) if run.metrics]
    except ModelError:
        return []


def _times_beside(path: Path, log: TrtexecLog, *, alone: bool) -> TrtexecTimes | None:
    """Return the times of a log's run; alone: the only timed run of it, so that the log's name tells them too."""
    named = _exported(log)
    beside = [path.with_name(named)] if named else []
    if alone:
        beside += [path.with_name(_stem(path) + suffix) for suffix in TIMES_SUFFIXES]
    found = next((one for one in beside if one.is_file()), None)
    return None if found is None else trtexec_times.read_times(found)


def _exported(log: TrtexecLog) -> str:
    named = _EXPORTED.search(log.command)
    return Path(named[1]).name if named else ""
