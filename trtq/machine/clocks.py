"""How fast a machine ran while something was measured on it: clocks, temperatures, load, and signs of throttling."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtq.machine.gpu_clocks import GpuClock, gpu_clock, jetson_locked
from trtq.machine.jetson import this_jetson
from trtq.machine.nvidia import text_of

CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
CPU_INFO, STAT, LOAD = Path("/proc/cpuinfo"), Path("/proc/stat"), Path("/proc/loadavg")
KHZ_PER_MHZ = 1000
STEAL_FIELD = 7  # of the first line of /proc/stat, behind its name
# A clock that falls by more than this while something is measured counts as throttled.
FALL = 0.05
# The share of processor time that a host may take from a virtual machine.
STEAL = 0.02
COUNTERS = {"cpu_throttles": "the processor", "gpu_slowdowns": "the GPU"}
CLOCKS = {"cpu_mhz": "the processor's clock", "gpu_sm_mhz": "the GPU's clock"}


@dataclass(frozen=True)
class Reading:
    """Figures of a moment by name, units in the names; reasons: why the GPU is slower than it was asked to be."""

    at_s: float
    figures: Mapping[str, float]
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "at_s": round(self.at_s, 3),
            **self.figures,
            **({"reasons": list(self.reasons)} if self.reasons else {}),
        }


class Watch:
    """Reads a machine's clocks before, while and after something is measured; readings that cost time only at rest.

    gpu: whether the GPU is asked too. readings: in order of time. settings: what does not change meanwhile.
    """

    def __init__(self, *, gpu: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gpu: GpuClock | None = gpu_clock() if gpu else None
        self._clock = clock
        self._start = clock()
        self.readings: list[Reading] = []
        self.settings = _settings(gpu)
        self.unreadable = tuple(_unreadable(gpu, self._gpu))

    def read(self, *, at_rest: bool) -> None:
        """Take a reading; at_rest: nothing is being measured, so a program may be started for it."""
        found = self._gpu.read() if self._gpu is not None and (at_rest or self._gpu.cheap) else None
        figures = {**_cpu_figures(), **(found.figures if found else {})}
        self.readings.append(Reading(self._clock() - self._start, figures, found.reasons if found else ()))

    def summary(self) -> dict[str, Any]:
        """Return the settings, and the mean of each clock between the first and the last reading."""
        during = self.readings[1:-1] or self.readings
        means = {
            name: round(statistics.fmean(values), 1)
            for name in (*CLOCKS, "gpu_memory_mhz")
            if (values := [one.figures[name] for one in during if name in one.figures])
        }
        return {**self.settings, **means}


def throttling(readings: Sequence[Reading], cores: int) -> tuple[str, ...]:
    """Return what readings tell of throttling and of other work on the machine, a sentence each."""
    if not readings:
        return ()
    found = [f"throttled: the GPU reports {word}" for word in dict.fromkeys(w for one in readings for w in one.reasons)]
    first, last = readings[0].figures, readings[-1].figures
    for name, whose in COUNTERS.items():
        if last.get(name, 0) > first.get(name, 0):
            found.append(f"throttled: {whose} slowed down {last[name] - first.get(name, 0):g} times meanwhile")
    # A processor at rest may clock down, so the first and the last reading do not count.
    during = readings[1:-1]
    for name, whose in CLOCKS.items():
        values = [one.figures[name] for one in during if name in one.figures]
        if values and min(values) < (1 - FALL) * max(values):
            found.append(f"throttled: {whose} fell from {max(values):.0f} to {min(values):.0f} MHz meanwhile")
    stolen = last.get("steal_ticks", 0) - first.get("steal_ticks", 0)
    ticks = last.get("cpu_ticks", 0) - first.get("cpu_ticks", 0)
    if ticks and stolen / ticks > STEAL:
        found.append(f"the host took {100 * stolen / ticks:.0f} % of this virtual machine's processor time")
    if first.get("load_average", 0) > cores / 2:
        found.append(f"other work ran before the start: load average {first['load_average']:.1f} on {cores} cores")
    return tuple(found)


def parse_mhz(cpu_info: str) -> float | None:
    """Return the fastest core's clock in the text of /proc/cpuinfo, which x86 alone has: idle cores clock down."""
    values = [float(one) for one in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpu_info, re.MULTILINE)]
    return max(values, default=None)


def parse_stat(text: str) -> tuple[int, int] | None:
    """Return all ticks of the processors, and those that a host took, from the text of /proc/stat."""
    found = re.match(r"cpu +((?:\d+ ?)+)", text)
    ticks = [int(one) for one in found[1].split()] if found else []
    return (sum(ticks[: STEAL_FIELD + 1]), ticks[STEAL_FIELD]) if len(ticks) > STEAL_FIELD else None


def _cpu_figures() -> dict[str, float]:
    figures: dict[str, float | None] = {
        "cpu_mhz": _cpu_mhz(),
        "cpu_temperature_c": _temperature_c(),
        "load_average": os.getloadavg()[0],
        "cpu_throttles": _sum(CPUS.glob("cpu*/thermal_throttle/core_throttle_count")),
    }
    ticks = parse_stat(text_of(STAT))
    if ticks is not None:
        figures |= {"cpu_ticks": float(ticks[0]), "steal_ticks": float(ticks[1])}
    return {name: round(value, 2) for name, value in figures.items() if value is not None}


def _cpu_mhz() -> float | None:
    khz = [int(text) for path in CPUS.glob("cpufreq/policy*/scaling_cur_freq") if (text := text_of(path).strip())]
    return max(khz) / KHZ_PER_MHZ if khz else parse_mhz(text_of(CPU_INFO))


def _temperature_c() -> float | None:
    texts = [text_of(path).strip() for path in THERMAL.glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in texts if text.removeprefix("-").isdecimal()]
    return max(degrees, default=None)


def _sum(paths: Any) -> float | None:
    texts = [text_of(path).strip() for path in paths]
    counts = [int(text) for text in texts if text.isdecimal()]
    return float(sum(counts)) if counts else None


def _settings(gpu: bool) -> dict[str, Any]:
    governor = text_of(CPUS / "cpufreq" / "policy0" / "scaling_governor").strip()
    board = this_jetson()
    found: dict[str, Any] = {"governor": governor or None, "power_mode": board.power_mode if board else None}
    if gpu:
        found["gpu_clock_fixed"] = jetson_locked()
    return {name: value for name, value in found.items() if value is not None}


def _unreadable(gpu: bool, clock: GpuClock | None) -> list[str]:
    figures = _cpu_figures()
    words = {
        "cpu_mhz": "the processor's clock",
        "cpu_temperature_c": "its temperature",
        "cpu_throttles": "its throttle counters",
    }
    missing = [word for name, word in words.items() if name not in figures]
    return missing + (["the GPU's clocks"] if gpu and clock is None else [])
