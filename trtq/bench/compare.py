"""Comparing two benchmark results: a ratio of times, how sure it is, and nothing claimed beyond that."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from trtq.bench.bootstrap import COARSE_BLOCKS, Floats, blocks_of, spread
from trtq.bench.result import BenchResult
from trtq.bench.statistics import CONFIDENCE, FEWEST_BLOCKS
from trtq.errors import ConfigError

# A difference below this is not called one: what placement in memory alone makes of one engine in two processes.
MARGIN = 0.02
# Between measurements that were not taken in turn more changes: temperature, drivers, what else runs.
APART_MARGIN = 0.05
# What decides how a time is taken; the length of a measurement does not.
REGIME = ("streams", "cuda_graph", "spin_wait", "data_transfers", "profiled", "threads", "clock", "input")
# Of a machine's packages, those that run engines.
RUNTIMES = ("onnxruntime", "tensorrt", "tensorrt-rtx-cu12")
MACHINE = ("cpu", "cores", "instruction_sets", "gpus", "driver", "cuda", "tensorrt", "jetson")
# Clocks closer than this are one.
CLOCK_TOLERANCE = 0.03


class Verdict(str, Enum):
    """What an interval of the time ratio allows to say."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE_SHOWN = "no difference shown"


@dataclass(frozen=True)
class Speed:
    """How `candidate` runs against `baseline`: `ratio` is its time over the baseline's, below 1 is faster.

    ratio: the geometric mean over blocks of runs of the ratio of medians. margin: the smallest difference that counts.
    paired: measured in turn, so that what both saw cancels.
    """

    baseline: str
    candidate: str
    ratio: float
    low: float
    high: float
    confidence: float
    margin: float = 0.0
    paired: bool = False

    @property
    def verdict(self) -> Verdict:
        """The statement that the interval allows: a difference where all of it lies beyond the margin."""
        if self.high < 1 / (1 + self.margin):
            return Verdict.FASTER
        return Verdict.SLOWER if self.low > 1 + self.margin else Verdict.NO_DIFFERENCE_SHOWN

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with the verdict."""
        return {**vars(self), "verdict": self.verdict.value}


def compare(
    baseline: BenchResult, candidate: BenchResult, *, margin: float | None = None, confidence: float = CONFIDENCE
) -> Speed:
    """Return the ratio of times with its interval, from block means of the logarithms; equal input, equal output.

    Results of one interleaved measurement are compared round by round, which keeps drift that both saw out of the
    interval. margin: the smallest difference that counts; None: 2 % for results that were measured in turn, 5 % for
    others, whose interval does not hold what changes between measurements.
    Raises `ConfigError` for results that do not compare (`differences` says why), or of fewer than 10 times.
    """
    reasons = differences(baseline, candidate)
    if reasons:
        raise ConfigError(f"'{baseline.name}' and '{candidate.name}' are not comparable: {'; '.join(reasons)}")
    paired = bool(baseline.run) and baseline.run == candidate.run and len(baseline.rounds) == len(candidate.rounds)
    old, new = _log_medians(baseline), _log_medians(candidate)
    if paired and len(old) == len(new):
        middle, one = float(np.mean(new - old)), spread(new - old)
    else:
        paired, middle, one = False, float(np.mean(new) - np.mean(old)), spread(new).less(spread(old))
    if margin is None:
        margin = MARGIN if paired else APART_MARGIN
    half = one.half_width(confidence)
    low, ratio, high = (math.exp(end) for end in (middle - half, middle, middle + half))
    return Speed(baseline.name, candidate.name, ratio, low, high, confidence, margin, paired)


def differences(a: BenchResult, b: BenchResult) -> tuple[str, ...]:
    """Return why two results are not comparable, a reason each; none where they are."""
    return tuple(_differences(a, b))


def _differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    for one in (a, b):
        if not one.times_us:
            yield f"'{one.name}' is a log's summary without single times; add --exportTimes"
        elif len(one.times_us) < FEWEST_BLOCKS:
            yield f"'{one.name}' has fewer than {FEWEST_BLOCKS} times, which say nothing; measure more iterations"
    if a.batch != b.batch:
        yield f"batches of {a.batch} and {b.batch}"
    if a.dialect != b.dialect:
        yield f"run by {a.dialect or 'an unknown library'} and {b.dialect or 'an unknown library'}"
    yield from _machines(a.machine, b.machine)
    for key in REGIME:
        if a.options.get(key) != b.options.get(key):
            yield f"measured with {key.replace('_', ' ')} {_word(a, key)} and {_word(b, key)}"
    yield from _clocks(a, b)


def _machines(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for key in MACHINE:
        if _plain(a.get(key)) != _plain(b.get(key)):
            yield f"different machines ({key}: {_short(key, a.get(key))} and {_short(key, b.get(key))})"
    of_a, of_b = a.get("packages", {}), b.get("packages", {})
    for name in RUNTIMES:
        if of_a.get(name) != of_b.get(name):
            yield f"different software ({name} {of_a.get(name)} and {of_b.get(name)})"


def _clocks(a: BenchResult, b: BenchResult) -> Iterator[str]:
    """Yield what tells the clocks of two measurements apart; of one interleaved measurement they are common."""
    if a.run and a.run == b.run:
        return
    for key in sorted(set(a.clocks) & set(b.clocks)):
        one, other = a.clocks[key], b.clocks[key]
        if isinstance(one, (int, float)) and isinstance(other, (int, float)):
            if key.endswith("_mhz") and abs(one - other) > CLOCK_TOLERANCE * max(one, other):
                yield f"different clocks ({key} {one:g} and {other:g})"
        elif one != other:
            yield f"different clocks ({key}: {_short(key, one)} and {_short(key, other)})"


def _log_medians(result: BenchResult) -> Floats:
    """Return the logarithm of the median of each block of consecutive runs, at most 100 blocks.

    Blocks are whole rounds where there are enough, and else equal parts of each, so that those of results of one
    measurement belong together in time.
    """
    times = np.log(np.asarray(result.times_us))
    rounds = np.split(times, np.cumsum(result.rounds)[:-1]) if result.rounds else [times]
    parts = min(math.ceil(COARSE_BLOCKS / len(rounds)), *map(len, rounds))
    if not result.rounds or parts * len(rounds) < FEWEST_BLOCKS:
        return _medians(np.array_split(times, blocks_of(len(times))))
    if parts > 1:
        return _medians([part for one in rounds for part in np.array_split(one, parts)])
    groups = np.array_split(np.arange(len(rounds)), blocks_of(len(rounds)))
    return _medians([np.concatenate([rounds[one] for one in group]) for group in groups])


def _medians(parts: list[Floats]) -> Floats:
    if len({len(one) for one in parts}) == 1:
        return np.asarray(np.median(np.stack(parts), axis=1))
    return np.array([np.median(one) for one in parts])


def _word(result: BenchResult, key: str) -> str:
    value = result.options.get(key)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "untold" if value is None else str(value)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _short(key: str, value: Any) -> str:
    if key == "gpus" and isinstance(value, (list, tuple)):
        return ", ".join(str(one.get("name")) for one in value) or "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
