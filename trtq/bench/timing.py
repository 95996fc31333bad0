"""Timing engines against each other: in rounds, each engine once a round, so that drift hits all alike."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trtq.backends import Session
from trtq.backends.launch import Times
from trtq.backends.measuring import BenchOptions
from trtq.bench.bootstrap import COARSE_BLOCKS, MOST_BLOCKS
from trtq.bench.result import NOTHING, BenchResult
from trtq.errors import ConfigError
from trtq.machine.clocks import Watch, throttling

NS_PER_US, NS_PER_S = 1000, 1e9
US_PER_S = 1e6
# At the start of an engine's turn its data have left the caches: where many runs follow, the first is not counted.
SETTLED_RUNS = 10
READING_EVERY_S = 1.0
# Slower at the end than at the start by more than this is worth a note.
DRIFT = 0.05


class Timer(Protocol):
    """An engine that is ready to be timed on its input."""

    def time(self, *, iterations: int, duration_s: float = 0.0) -> Times:
        """Run at least so often and at least so long, and return the times of every run."""


@dataclass(frozen=True)
class Timed:
    """An engine to be timed, and what is known of it; slice_s: the shortest turn that pays, where starting one costs.

    options: what its back end adds to how it is measured. warms_up_itself: in every turn.
    """

    name: str
    timer: Timer
    backend: str
    dialect: str
    batch: int
    options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    slice_s: float = 0.0
    warms_up_itself: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rounds:
    """How a measurement is cut: so many rounds, in each of which every engine runs so long and at least so often."""

    count: int
    slice_s: float
    runs: int


class HostTimer:
    """A session on the processor; the clock, in nanoseconds, runs around each `run`, copies in and out included."""

    def __init__(
        self,
        session: Session,
        feeds: Mapping[str, npt.NDArray[Any]],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._session = session
        self._feeds = feeds
        self._clock = clock

    def time(self, *, iterations: int, duration_s: float = 0.0) -> Times:
        """Run at least so often and at least so long, and return the times of every run; raises `ModelError`."""
        times: list[float] = []
        begin, begin_ns = time.perf_counter(), self._clock()
        while len(times) < iterations or time.perf_counter() - begin < duration_s:
            start = self._clock()
            self._session.run(self._feeds)
            times.append((self._clock() - start) / NS_PER_US)
        return Times(tuple(times), (), (), (), (self._clock() - begin_ns) / NS_PER_S)


def plan_rounds(options: BenchOptions, run_s: float, slice_s: float = 0.0) -> Rounds:
    """Return how a measurement is cut into rounds: up to 100, and at least 10 where a turn may be that short.

    run_s: what a run of the slowest engine takes. slice_s: the shortest turn that pays.
    """
    shortest = max(slice_s, run_s)
    fitting = int(options.duration_s / shortest) if shortest > 0 and options.duration_s > 0 else options.iterations
    least = 1 if slice_s else min(options.iterations, COARSE_BLOCKS)
    count = min(MOST_BLOCKS, max(least, fitting, 1))
    return Rounds(count, options.duration_s / count, math.ceil(options.iterations / count))


def measure(
    engines: Mapping[str, Timed],
    options: BenchOptions,
    watch: Watch,
    *,
    machine: Mapping[str, Any] = NOTHING,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, BenchResult]:
    """Time the engines in turn and return their raw times, by name; a round's order is drawn anew, by the seed.

    Warm-up, duration and iterations are of each engine. `progress` is called with rounds done and in all. The watch is
    read before, about every second meanwhile, and after. Raises `ConfigError` for no engine, and what timers raise.
    """
    if not engines:
        raise ConfigError("a benchmark needs at least one engine")
    watch.read(at_rest=True)
    slowest_s = max(_warmed_up(one, options) for one in engines.values())
    rounds = plan_rounds(options, slowest_s, max(one.slice_s for one in engines.values()))
    random = np.random.default_rng(options.seed)
    taken: dict[str, list[Times]] = {name: [] for name in engines}
    last_reading = -math.inf
    for done in range(rounds.count):
        for index in random.permutation(len(engines)):
            name = list(engines)[index]
            taken[name].append(_turn(engines[name], rounds, slowest_s, alone=len(engines) == 1))
        if time.perf_counter() - last_reading > READING_EVERY_S:
            watch.read(at_rest=False)
            last_reading = time.perf_counter()
        progress(done + 1, rounds.count)
    watch.read(at_rest=True)
    notes = throttling(watch.readings, int(machine.get("cores") or 1))
    about = _About(uuid.uuid4().hex, options, machine, watch.summary(), notes)
    return {name: _result(one, taken[name], about) for name, one in engines.items()}


@dataclass(frozen=True)
class _About:
    """What all results of one measurement share."""

    run: str
    options: BenchOptions
    machine: Mapping[str, Any]
    clocks: Mapping[str, Any]
    notes: tuple[str, ...]


def _warmed_up(engine: Timed, options: BenchOptions) -> float:
    """Warm an engine up and return the seconds that a run of it takes."""
    if engine.warms_up_itself:
        return 0.0
    times = engine.timer.time(iterations=1, duration_s=options.warm_up_ms / 1000)
    return float(np.median(times.compute_us)) / US_PER_S


def _turn(engine: Timed, rounds: Rounds, run_s: float, *, alone: bool) -> Times:
    if not alone and not engine.warms_up_itself and rounds.slice_s > SETTLED_RUNS * run_s:
        engine.timer.time(iterations=1)
    return engine.timer.time(iterations=rounds.runs, duration_s=rounds.slice_s)


def _result(engine: Timed, taken: list[Times], about: _About) -> BenchResult:
    parts = {
        "compute": [one for times in taken for one in times.compute_us],
        "enqueue": [one for times in taken for one in times.enqueue_us],
        "to_device": [one for times in taken for one in times.to_device_us],
        "to_host": [one for times in taken for one in times.to_host_us],
    }
    present = [np.asarray(parts[name]) for name in ("compute", "to_device", "to_host") if parts[name]]
    latency = np.sum(present, axis=0)
    asked = {key: value for key, value in about.options.to_json().items() if key not in ("batch", "threads", "clock")}
    apart = {
        name: tuple(values) for name, values in parts.items() if values and (name != "compute" or len(present) > 1)
    }
    return BenchResult(
        name=engine.name,
        backend=engine.backend,
        batch=engine.batch,
        times_us=tuple(latency.tolist()),
        options={**asked, "profiled": False, **engine.options},
        machine=about.machine,
        dialect=engine.dialect,
        run=about.run,
        rounds=tuple(len(times.compute_us) for times in taken),
        parts_us=apart,
        wall_s=sum(times.wall_s for times in taken),
        clocks=about.clocks,
        notes=(*engine.notes, *about.notes, *_drift(latency)),
    )


def _drift(latency: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Return a note where the runs of the last third were slower, or faster, than those of the first."""
    third = len(latency) // 3
    if third < COARSE_BLOCKS:
        return ()
    change = float(np.median(latency[-third:]) / np.median(latency[:third])) - 1
    return (
        (f"its times drifted by {100 * change:+.0f} % from the first third to the last",) if abs(change) > DRIFT else ()
    )


def interleaved(
    sessions: Mapping[str, Session],
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    warmup: int,
    iterations: int,
    backends: Mapping[str, str] = NOTHING,
    machine: Mapping[str, Any] = NOTHING,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, BenchResult]:
    """Run the sessions A B A B ..., one run each in turn, and return the raw times of each, by name.

    feeds: arrays of one batch, the same for all; their first dimension is the batch. warmup: rounds before the clock
    counts. backends: back end by session name. clock: nanoseconds. The time of a run holds copies in and out.
    Raises `ConfigError` for an empty or impossible request, `ModelError` when the feeds do not fit a session.
    """
    if not sessions or not feeds or iterations < 1 or warmup < 0:
        raise ConfigError(
            "a benchmark needs at least one session, one input and one iteration, and no negative warm-up"
        )
    for _ in range(warmup):
        for session in sessions.values():
            session.run(feeds)
    timers = {name: HostTimer(session, feeds, clock) for name, session in sessions.items()}
    times_us: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(iterations):
        for name, timer in timers.items():
            times_us[name] += timer.time(iterations=1).compute_us
    options = {"warmup": warmup, "iterations": iterations, "order": list(sessions)}
    first = next(iter(feeds.values()))
    batch = first.shape[0] if first.ndim else 1
    run = uuid.uuid4().hex
    return {
        name: BenchResult(
            name, backends.get(name, ""), batch, tuple(times), options, machine, run=run, rounds=(1,) * iterations
        )
        for name, times in times_us.items()
    }
