"""Launching a prepared engine again and again, and taking the times of each run on the device and on the host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from trtq.backends.cuda import Cuda, event
from trtq.errors import ConfigError

# While one run is on the device, the next one is already enqueued: the device never waits for the host.
RUNS_IN_FLIGHT = 2
NS_PER_US = 1000


@dataclass(frozen=True)
class Times:
    """Raw times of runs in their order, in microseconds; `wall_s` is the host's time over all of them.

    compute_us: the engine on the device, between two events. enqueue_us: what the host's call took.
    to_device_us, to_host_us: the copies on the device's clock, empty where runs do not copy.
    """

    compute_us: tuple[float, ...]
    enqueue_us: tuple[float, ...]
    to_device_us: tuple[float, ...]
    to_host_us: tuple[float, ...]
    wall_s: float


@dataclass(frozen=True)
class Work:
    """What one run puts into a stream: copies in, the engine, copies out."""

    copy_in: Callable[[], None]
    compute: Callable[[], None]
    copy_out: Callable[[], None]


@dataclass(frozen=True)
class Lane:
    """A stream and what each run puts into it; runs of several lanes overlap on the device."""

    stream: int
    work: Work


@dataclass(frozen=True)
class _Slot:
    """One run in flight: where it runs, and its events."""

    lane: Lane
    begin: int
    start: int
    end: int
    done: int


class Launch:
    """An engine with its inputs in place, ready to be run and timed; made by `launching`. Lanes take turns."""

    def __init__(self, cuda: Cuda, slots: list[_Slot], *, transfers: bool) -> None:
        self._cuda = cuda
        self._slots = slots
        self._transfers = transfers

    def warm_up(self, duration_s: float) -> int:
        """Run at least once, and on until the time is over; return the number of runs."""
        return len(self.time(iterations=1, duration_s=duration_s).compute_us)

    def time(self, *, iterations: int, duration_s: float = 0.0) -> Times:
        """Run at least so often and at least so long, and return the times of every run.

        Raises `ConfigError` for fewer than one iteration or a negative time, `ModelError` with CUDA's own words.
        """
        if iterations < 1 or duration_s < 0:
            raise ConfigError(f"timing wants at least one iteration and no negative time, not {iterations}")
        runs: list[tuple[float, ...]] = []
        flying: deque[tuple[_Slot, float]] = deque()
        count, start = 0, time.perf_counter()
        while count < iterations or time.perf_counter() - start < duration_s:
            if len(flying) == len(self._slots):
                runs.append(self._finish(*flying.popleft()))
            flying.append(self._begin(self._slots[count % len(self._slots)]))
            count += 1
        runs.extend(self._finish(*one) for one in flying)
        wall_s = time.perf_counter() - start
        compute, enqueue, to_device, to_host = zip(*runs, strict=True)
        if not self._transfers:
            to_device, to_host = (), ()
        return Times(compute, enqueue, to_device, to_host, wall_s)

    def _begin(self, slot: _Slot) -> tuple[_Slot, float]:
        stream, work = slot.lane.stream, slot.lane.work
        if self._transfers:
            self._cuda.record(slot.begin, stream)
            work.copy_in()
        self._cuda.record(slot.start, stream)
        enqueued = time.perf_counter_ns()
        work.compute()
        enqueue_us = (time.perf_counter_ns() - enqueued) / NS_PER_US
        self._cuda.record(slot.end, stream)
        if self._transfers:
            work.copy_out()
            self._cuda.record(slot.done, stream)
        return slot, enqueue_us

    def _finish(self, slot: _Slot, enqueue_us: float) -> tuple[float, ...]:
        self._cuda.wait(slot.done if self._transfers else slot.end)
        compute_us = self._cuda.elapsed_us(slot.start, slot.end)
        if not self._transfers:
            return compute_us, enqueue_us, 0.0, 0.0
        before = self._cuda.elapsed_us(slot.begin, slot.start)
        return compute_us, enqueue_us, before, self._cuda.elapsed_us(slot.end, slot.done)


@contextmanager
def launching(cuda: Cuda, lanes: Sequence[Lane], *, spin: bool, transfers: bool) -> Iterator[Launch]:
    """Hold the events that timing takes; `spin`: waiting for a run keeps a processor busy, and ends sooner."""
    with ExitStack() as stack:
        slots = [
            _Slot(lane, *(stack.enter_context(event(cuda, spin=spin)) for _ in range(4)))
            for _ in range(RUNS_IN_FLIGHT)
            for lane in lanes
        ]
        try:
            yield Launch(cuda, slots, transfers=transfers)
        finally:
            for lane in lanes:
                cuda.synchronize(lane.stream)
