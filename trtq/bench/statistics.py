"""Intervals for timings, which are neither independent nor normal, and percentiles as trtexec ranks them.

By how many standard errors a mean may be off comes from the bootstrap of block means (trtq/bench/bootstrap.py).
Sources of what is made of it: percentiles by the share of times below them: Woodruff, "Confidence intervals for medians
and other position measures", 1952, with Wilson's interval, 1927, at the effective number of times: Korn and Graubard,
1998. Means of skewed times: Hall, "On the removal of skewness by transformation", 1992. Benchmarks: Kalibera and Jones,
"Rigorous benchmarking in reasonable time", 2013.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from trtq.bench.bootstrap import Floats, blocks_of, means_of, spread, standard_error

CONFIDENCE = 0.95
FEWEST_BLOCKS = 10
SMALLEST_SKEW = 1e-3


@dataclass(frozen=True)
class Interval:
    """An interval that holds the true value at the stated rate; None: the times set no bound there."""

    low: float | None
    high: float | None


def mean_interval(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the mean of a series; at its ends, the skewness of the values is taken into account."""
    one = spread(_block_means(values))
    mean, critical = float(values.mean()), one.critical(confidence)
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

    What is resampled are the shares of times below the percentile, block by block. Rare slow runs tell little about how
    they cluster: where the shares of a lower percentile depend on each other more, theirs are what counts. No bound is
    given where the times do not reach far enough.
    """
    ordered, count = np.sort(values), len(values)
    found: dict[float, Interval] = {}
    # The critical value of times that are all equal, which leave nothing to resample.
    dependence, critical = 0.0, NormalDist().inv_cdf((1 + confidence) / 2)
    for percent in percents:
        share = percent / 100
        blocks = _block_means((values <= percentile(ordered, percent)).astype(np.float64))
        own = standard_error(blocks) ** 2 * count / (share * (1 - share))
        if own > dependence:
            dependence, critical = own, spread(blocks).critical(confidence)
        low, high = _wilson(share, count / max(dependence, 1.0), critical)
        found[percent] = Interval(
            _ranked(ordered, math.floor(low * count) - 1), _ranked(ordered, math.ceil(high * count))
        )
    return found


def _block_means(values: Floats) -> Floats:
    return means_of(values, blocks_of(len(values)))


def _wilson(share: float, count: float, critical: float) -> tuple[float, float]:
    square = critical**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = critical / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return middle - half, middle + half


def _ranked(ordered: Floats, rank: int) -> float | None:
    return float(ordered[rank]) if 0 <= rank < len(ordered) else None
