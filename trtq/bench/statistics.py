"""Intervals for timings, which are neither independent nor normal: block means, widened by what blocks share.

Runs follow each other, so a slow one is followed by slow ones: resampling single times, or blocks of a fixed length,
gives intervals that are too narrow (benchmarks/bench_statistics.py records by how much). Here the times of consecutive
runs make blocks, the variance of the blocks' mean is widened by their lag-1 autocorrelation, as of a first-order
autoregression, at two lengths of blocks, and the wider of the two intervals is taken.

Sources: batch means: Conway, "Some tactical problems in digital simulation", 1963; Law and Kelton, "Confidence
intervals for steady-state simulations", 1984. Bias of the autocorrelation: Kendall, "Note on bias in the estimation of
autocorrelation", 1954. Percentiles by the share of times below them: Woodruff, "Confidence intervals for medians and
other position measures", 1952, with Wilson's interval, 1927, at the effective number of times: Korn and Graubard,
1998. Means of skewed times: Hall, "On the removal of skewness by transformation", 1992. Benchmarks: Kalibera and Jones,
"Rigorous benchmarking in reasonable time", 2013.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
FEWEST_BLOCKS = 10
MOST_BLOCKS = 100
COARSE_BLOCKS = 25
# Beyond it an autocorrelation cannot be told from a drift, and the widening from infinity.
LARGEST_CORRELATION = 0.9
SMALLEST_SKEW = 1e-3


@dataclass(frozen=True)
class Interval:
    """An interval that holds the true value at the stated rate; None: the times set no bound there."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Spread:
    """The standard error of a mean of blocks, and the degrees of freedom that it was estimated with."""

    error: float
    freedom: int

    def half_width(self, confidence: float) -> float:
        """Return half the width of the mean's interval."""
        return self.error * student(self.freedom, confidence)


def student(freedom: int, confidence: float) -> float:
    """Return Student's two-sided critical value; source: Abramowitz and Stegun 26.7.5, to 0.1 % from 9 degrees on."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def blocks_of(count: int) -> int:
    """Return into how many blocks a series of so many values is cut."""
    return min(MOST_BLOCKS, count)


def spread(blocks: Floats, confidence: float = CONFIDENCE) -> Spread:
    """Return the spread of the mean of consecutive blocks: of these, or of 25 longer ones, whichever is wider."""
    found = [_widened(blocks)]
    if len(blocks) >= 2 * COARSE_BLOCKS:
        found.append(_widened(_means(blocks, COARSE_BLOCKS)))
    return max(found, key=lambda one: one.half_width(confidence))


def mean_interval(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the mean of a series; at its ends, the skewness of the values is taken into account."""
    blocks = _block_means(values)
    one = spread(blocks, confidence)
    mean, critical = float(values.mean()), student(one.freedom, confidence)
    deviation = float(values.std())
    skew = float(((values - mean) ** 3).mean()) / deviation**3 / math.sqrt(len(values)) if deviation else 0.0
    if abs(skew) < SMALLEST_SKEW:
        return Interval(mean - critical * one.error, mean + critical * one.error)

    def quantile(t: float) -> float:
        return 3 / skew * (float(np.cbrt(1 + skew * (t - skew / 6))) - 1)

    return Interval(mean - one.error * quantile(critical), mean - one.error * quantile(-critical))


def percentile(values: Floats, percent: float) -> float:
    """Return a percentile of sorted values as trtexec takes it: the smallest that this share of them stays within.

    The median of an even number is the mean of the middle two. Source: `findPercentile` of trtexec's reporting.cpp.
    """
    if percent == 50:
        return float(np.median(values))
    # In single precision, as there: it decides the rank where the share is a whole number of values.
    above = (np.float32(1) - np.float32(percent) / np.float32(100)) * np.float32(len(values))
    return float(values[max(len(values) - 1 - int(above), 0)])


def percentile_intervals(
    values: Floats, percents: Sequence[float], confidence: float = CONFIDENCE
) -> dict[float, Interval]:
    """Return the intervals of percentiles of a series, which come in ascending order.

    Rare slow runs tell little about how they cluster, so a percentile's times are taken for as dependent as those of
    the percentiles below it. No bound is given where the times do not reach far enough.
    """
    ordered = np.sort(values)
    found: dict[float, Interval] = {}
    dependence = 1.0
    for percent in percents:
        share = percent / 100
        below = (values <= percentile(ordered, percent)).astype(np.float64)
        one = spread(_block_means(below), confidence)
        dependence = max(dependence, one.error**2 * len(values) / (share * (1 - share)))
        low, high = _wilson(share, len(values) / dependence, student(one.freedom, confidence))
        below_low, above_high = math.floor(low * len(values)) - 1, math.ceil(high * len(values))
        found[percent] = Interval(_ranked(ordered, below_low), _ranked(ordered, above_high))
    return found


def _block_means(values: Floats) -> Floats:
    return _means(values, blocks_of(len(values)))


def _means(values: Floats, count: int) -> Floats:
    """Return the means of so many consecutive parts, as equal in length as can be."""
    edges = np.linspace(0, len(values), count + 1).astype(np.int64)
    means: Floats = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return means


def _widened(blocks: Floats) -> Spread:
    count = len(blocks)
    deviations = blocks - blocks.mean()
    squares = float(deviations @ deviations)
    if squares == 0:
        return Spread(0.0, count - 1)
    correlation = float(deviations[1:] @ deviations[:-1]) / squares
    unbiased = (correlation + 1 / count) / (1 - 3 / count)
    kept = min(max(unbiased, 0.0), LARGEST_CORRELATION)
    return Spread(math.sqrt(squares / (count - 1) / count * (1 + kept) / (1 - kept)), count - 1)


def _wilson(share: float, count: float, critical: float) -> tuple[float, float]:
    square = critical**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = critical / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return middle - half, middle + half


def _ranked(ordered: Floats, rank: int) -> float | None:
    return float(ordered[rank]) if 0 <= rank < len(ordered) else None
