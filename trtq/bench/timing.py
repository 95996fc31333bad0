"""Timing sessions against each other: one run of each in turn, so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from trtq.backends import Session
from trtq.bench.result import NOTHING, BenchResult
from trtq.errors import ConfigError

NS_PER_US = 1000


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
    """Run the sessions A B A B ... and return the raw times of each, by name.

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
    times_us: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(iterations):
        for name, session in sessions.items():
            start = clock()
            session.run(feeds)
            times_us[name].append((clock() - start) / NS_PER_US)
    options = {"warmup": warmup, "iterations": iterations, "order": list(sessions)}
    first = next(iter(feeds.values()))
    batch = first.shape[0] if first.ndim else 1
    return {
        name: BenchResult(name, backends.get(name, ""), batch, tuple(times), options, machine)
        for name, times in times_us.items()
    }
