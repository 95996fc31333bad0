"""Comparing two benchmark results: a ratio of medians, how sure it is, and nothing claimed beyond that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from trtq.bench.result import BenchResult
from trtq.errors import ConfigError

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_TIMES = 10
CHUNK_VALUES = 1 << 20


class Verdict(str, Enum):
    """What an interval of the time ratio allows to say."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE_SHOWN = "no difference shown"


@dataclass(frozen=True)
class Speed:
    """How `candidate` runs against `baseline`: `ratio` is its median time over the baseline's, below 1 is faster."""

    baseline: str
    candidate: str
    ratio: float
    low: float
    high: float
    confidence: float

    @property
    def verdict(self) -> Verdict:
        """The statement that the interval allows: none of a difference where it contains 1."""
        if self.high < 1:
            return Verdict.FASTER
        return Verdict.SLOWER if self.low > 1 else Verdict.NO_DIFFERENCE_SHOWN


def compare(
    baseline: BenchResult,
    candidate: BenchResult,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Speed:
    """Return the ratio of medians with its percentile bootstrap interval (Efron, 1979); equal input, equal output.

    Results of one interleaved run are resampled in pairs, which keeps drift that both saw out of the interval.
    Raises `ConfigError` for results of different batch or machine, or of fewer than 10 times.
    """
    _check(baseline, candidate)
    old, new = np.asarray(baseline.times_us), np.asarray(candidate.times_us)
    paired = len(old) == len(new) and "order" in baseline.options and baseline.options == candidate.options
    ratios = _bootstrap(old, new, paired, resamples, np.random.default_rng(seed))
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    ratio = candidate.median_us / baseline.median_us
    return Speed(baseline.name, candidate.name, ratio, float(low), float(high), confidence)


def _check(baseline: BenchResult, candidate: BenchResult) -> None:
    pair = f"'{baseline.name}' and '{candidate.name}'"
    if baseline.batch != candidate.batch:
        raise ConfigError(f"{pair} ran batches of {baseline.batch} and {candidate.batch}: not comparable")
    if baseline.machine != candidate.machine:
        raise ConfigError(f"{pair} ran on different machines or software: not comparable; measure both in one run")
    if min(len(baseline.times_us), len(candidate.times_us)) < FEWEST_TIMES:
        raise ConfigError(f"{pair}: fewer than {FEWEST_TIMES} times say nothing; measure more iterations")


def _bootstrap(
    old: npt.NDArray[np.float64],
    new: npt.NDArray[np.float64],
    paired: bool,
    resamples: int,
    random: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return the ratio of medians of `resamples` resamplings, in chunks of bounded memory."""
    ratios = np.empty(resamples)
    rows = max(1, CHUNK_VALUES // max(len(old), len(new)))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        first = random.integers(len(old), size=(count, len(old)))
        second = first if paired else random.integers(len(new), size=(count, len(new)))
        ratios[start : start + count] = np.median(new[second], axis=1) / np.median(old[first], axis=1)
    return ratios
