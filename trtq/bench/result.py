"""BenchResult: every raw time of one engine, what was asked, and where; or what a log states where it has no times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from trtq.bench.statistics import Interval, mean_interval, percentile, percentile_intervals
from trtq.errors import ModelError

FORMAT = "trtq_bench"
VERSION = 2
PERCENTS = (50.0, 90.0, 95.0, 99.0)
# Digits kept of a microsecond in files: the clocks of GPUs and hosts tell no more.
DIGITS = 3
# Fewer times than this have no interval.
FEWEST_TIMES = 10
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Stated:
    """The figures that a log states: queries per second and microseconds; None where it does not tell.

    percentiles_us: by percent, the median as 50. parts_us: medians of `compute`, `enqueue`, `to_device`, `to_host`.
    """

    throughput_qps: float | None
    mean_us: float | None
    percentiles_us: Mapping[float, float]
    queries: int | None = None
    min_us: float | None = None
    max_us: float | None = None
    parts_us: Mapping[str, float] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True)
class BenchResult:
    """Times of single runs in microseconds, in the order they were taken, warm-up excluded.

    times_us: a run's latency: copies in, computing, copies out. parts_us: the same runs' `compute`, `enqueue`,
    `to_device` and `to_host` where they were timed apart. rounds: how many of the runs each round of an interleaved
    measurement has. run: equal for results of one interleaved measurement. wall_s: of all runs, where runs overlap.
    dialect: the library that ran it, with its version. options: how it was measured, in trtexec's words. machine: JSON
    form of the machine that ran it. clocks: figures of the machine's clocks meanwhile, by name. stated: a log's own
    figures. notes: what a reader has to know, throttling above all.
    """

    name: str
    backend: str
    batch: int
    times_us: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    machine: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    dialect: str = ""
    run: str = ""
    rounds: tuple[int, ...] = ()
    parts_us: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: NOTHING)
    wall_s: float | None = None
    clocks: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    stated: Stated | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.times_us and self.stated is None:
            raise ModelError(f"benchmark '{self.name}': needs at least one time, all of them finite and above 0 us")
        if self.times_us and (not np.all(np.isfinite(self.times_us)) or min(self.times_us) <= 0):
            raise ModelError(f"benchmark '{self.name}': needs at least one time, all of them finite and above 0 us")
        if self.batch < 1:
            raise ModelError(f"benchmark '{self.name}': the batch is {self.batch}; it must be at least 1")
        if self.rounds and sum(self.rounds) != len(self.times_us):
            raise ModelError(f"benchmark '{self.name}': its rounds do not add up to its times; measure again")

    @property
    def median_us(self) -> float:
        """The median time of one run."""
        return self.percentile_us(50)

    @property
    def p90_us(self) -> float:
        """The time that 90 % of the runs stay within."""
        return self.percentile_us(90)

    @property
    def p95_us(self) -> float:
        """The time that 95 % of the runs stay within."""
        return self.percentile_us(95)

    @property
    def p99_us(self) -> float:
        """The time that 99 % of the runs stay within."""
        return self.percentile_us(99)

    @property
    def throughput_qps(self) -> float:
        """Runs per second: over the wall's time where it is known, else as runs follow each other; NaN where untold."""
        if self.times_us:
            return len(self.times_us) / self.wall_s if self.wall_s else 1e6 / float(np.mean(self.times_us))
        return _or_nan(self.stated.throughput_qps if self.stated else None)

    @property
    def throughput_per_s(self) -> float:
        """Images per second: batch times runs per second."""
        return self.batch * self.throughput_qps

    def percentile_us(self, percent: float) -> float:
        """Return a percentile of the times as trtexec takes it, or what a log states; NaN where it does not."""
        if self.times_us:
            return percentile(np.sort(self.times_us), percent)
        return _or_nan(self.stated.percentiles_us.get(percent) if self.stated else None)

    def part_us(self, name: str) -> float:
        """Return the median of a part of the runs; NaN where it was not timed apart, or does not exist.

        What a log states goes first: trtexec exports the ends of short parts with few digits.
        """
        if self.stated is not None and name in self.stated.parts_us:
            return self.stated.parts_us[name]
        return float(np.median(self.parts_us[name])) if name in self.parts_us else math.nan

    def intervals(self) -> dict[str, Interval]:
        """Return the 95 % intervals of `throughput_qps` and of the percentiles; none of fewer than 10 times."""
        if len(self.times_us) < FEWEST_TIMES:
            return {}
        times = np.asarray(self.times_us)
        found = {f"p{percent:g}_us": one for percent, one in percentile_intervals(times, PERCENTS).items()}
        mean = mean_interval(times)
        # Of the mean time; runs that overlap or leave gaps change the rate by a factor, not its relative width.
        factor = self.throughput_qps * float(times.mean())
        bounds = (factor / end if end and end > 0 else None for end in (mean.high, mean.low))
        return {"throughput_qps": Interval(*bounds), **found}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: raw times, and the figures that follow from them for whoever reads the file."""
        figures = {"p50_us": self.median_us, "p90_us": self.p90_us, "p95_us": self.p95_us, "p99_us": self.p99_us}
        figures |= {"throughput_qps": self.throughput_qps, "throughput_per_s": self.throughput_per_s}
        return {
            FORMAT: VERSION,
            "name": self.name,
            "backend": self.backend,
            "dialect": self.dialect,
            "batch": self.batch,
            "run": self.run,
            "times_us": [round(value, DIGITS) for value in self.times_us],
            "rounds": list(self.rounds),
            "parts_us": {name: [round(one, DIGITS) for one in values] for name, values in self.parts_us.items()},
            "wall_s": self.wall_s,
            "options": dict(self.options),
            "machine": dict(self.machine),
            "clocks": dict(self.clocks),
            "stated": None if self.stated is None else _stated_json(self.stated),
            "notes": list(self.notes),
            "figures": {name: value if math.isfinite(value) else None for name, value in figures.items()},
            "intervals": {name: [one.low, one.high] for name, one in self.intervals().items()},
        }


def from_json(document: Any) -> BenchResult:
    """Return the result that `BenchResult.to_json` wrote; raises `ModelError` for anything else."""
    if not isinstance(document, dict) or document.get(FORMAT) != VERSION:
        raise ModelError("this is not a benchmark result of trtq; measure again with the same version")
    try:
        return BenchResult(
            name=str(document["name"]),
            backend=str(document["backend"]),
            batch=int(document["batch"]),
            times_us=_floats(document["times_us"]),
            options=dict(document["options"]),
            machine=dict(document["machine"]),
            dialect=str(document["dialect"]),
            run=str(document["run"]),
            rounds=tuple(int(one) for one in document["rounds"]),
            parts_us={str(name): _floats(values) for name, values in document["parts_us"].items()},
            wall_s=None if document["wall_s"] is None else float(document["wall_s"]),
            clocks=dict(document["clocks"]),
            stated=None if document["stated"] is None else _stated(document["stated"]),
            notes=tuple(map(str, document["notes"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"this benchmark result is not complete ({error!r}); measure again") from error


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _stated_json(stated: Stated) -> dict[str, Any]:
    percentiles = {f"{percent:g}": value for percent, value in stated.percentiles_us.items()}
    return {**vars(stated), "percentiles_us": percentiles, "parts_us": dict(stated.parts_us)}


def _stated(document: dict[str, Any]) -> Stated:
    percentiles = {float(percent): float(value) for percent, value in document["percentiles_us"].items()}
    return Stated(**{**document, "percentiles_us": percentiles})
