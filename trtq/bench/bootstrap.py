"""The bootstrap behind every interval: series like the measured one, drawn anew, with what follows from what kept.

Runs follow each other, so a slow one is followed by slow ones: resampling single times, or blocks of a fixed length,
gives intervals that are too narrow (benchmarks/bench_statistics.py records by how much). Here a first-order
autoregression is fitted to the means of consecutive blocks of runs; what it leaves unexplained is drawn with
replacement, and the autoregression makes series of these draws (the sieve bootstrap). The mean of each is divided by
the standard error that the same formula gives that series, and the interval is taken from the absolute quotients (the
symmetric bootstrap-t), in which the scale of the draws cancels: so it holds what the standard error itself does not
know, dependence above all.

Sources: sieve: Kreiss, "Bootstrap procedures for AR(infinity)-processes", 1992; Bühlmann, "Sieve bootstrap for time
series", 1997. Bootstrap-t: Hall, "Theoretical comparison of bootstrap confidence intervals", 1988, and "On symmetric
bootstrap confidence intervals", 1988. Standard error by batch means: Law and Kelton, "Confidence intervals for
steady-state simulations", 1984. Bias of the autocorrelation: Kendall, "Note on bias in the estimation of
autocorrelation", 1954.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 4000
# The same draws in every call: equal input gives equal output.
SEED = 0
# How sure it is that the quantile is not below that of endlessly many resamples.
CERTAINTY = 0.95
MOST_BLOCKS = 100
COARSE_BLOCKS = 25
# Beyond it an autocorrelation cannot be told from a drift, and the widening from infinity.
LARGEST_CORRELATION = 0.9
# Series with less of it, three standard errors of 100 blocks, can look independent: none is taken for less dependent.
SMALLEST_CORRELATION = 0.3
# A resample that misses every rare value has next to no spread of its own; it counts as having this part of it.
SMALLEST_ERROR = 0.25


@dataclass(frozen=True, eq=False)
class Spread:
    """The standard error of a mean, and what resampling gives: shape (RESAMPLES,), in the unit of the values.

    means: the resampled means, less the true one. errors: the standard error that each resampled series shows.
    """

    error: float
    means: Floats
    errors: Floats

    def critical(self, confidence: float) -> float:
        """Return how many standard errors the mean lies from the true one at most, at this rate."""
        if not self.error:
            return 0.0
        quotients = np.abs(self.means) / np.maximum(self.errors, SMALLEST_ERROR * self.error)
        slack = NormalDist().inv_cdf(CERTAINTY) * math.sqrt(RESAMPLES * confidence * (1 - confidence))
        rank = min(math.ceil(RESAMPLES * confidence + slack), RESAMPLES - 1)
        return float(np.partition(quotients, rank)[rank])

    def half_width(self, confidence: float) -> float:
        """Return half the width of the mean's interval."""
        return self.error * self.critical(confidence)

    def less(self, other: Spread) -> Spread:
        """Return the spread of this mean less another one, of a series measured apart from this one.

        Both are resampled by the same draws, so each resample meets the one half of all resamples on: whichever of
        the two comes first, the same pairs meet.
        """
        means, errors = (np.roll(one, RESAMPLES // 2) for one in (other.means, other.errors))
        return Spread(math.hypot(self.error, other.error), self.means - means, np.hypot(self.errors, errors))


def blocks_of(count: int) -> int:
    """Return into how many blocks a series of so many values is cut."""
    return min(MOST_BLOCKS, count)


def means_of(values: Floats, count: int) -> Floats:
    """Return the means of so many consecutive parts of a series, as equal in length as can be."""
    edges = _edges(len(values), count)
    means: Floats = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return means


def standard_error(blocks: Floats) -> float:
    """Return the standard error of the mean of consecutive blocks, widened by what they share."""
    return float(_errors((blocks - blocks.mean())[:, None])[0])


def spread(blocks: Floats) -> Spread:
    """Return the spread of the mean of consecutive blocks, at least 10 of them; equal blocks, equal spread."""
    error = standard_error(blocks)
    if not error:
        return Spread(0.0, np.zeros(RESAMPLES), np.zeros(RESAMPLES))
    series = _resampled(blocks - blocks.mean())
    means = series.mean(axis=0)
    series -= means
    return Spread(error, means, _errors(series))


def _errors(deviations: Floats) -> Floats:
    """Return the standard error of each column's mean: of its blocks, or of 25 longer ones, whichever is larger.

    deviations: (blocks, columns), each column less its mean.
    """
    found = _widened(deviations)
    if len(deviations) < 2 * COARSE_BLOCKS:
        return found
    # Part by part: of so many columns, `np.add.reduceat` takes four times as long.
    parts = pairwise(_edges(len(deviations), COARSE_BLOCKS))
    coarse = np.stack([deviations[start:end].sum(axis=0) / (end - start) for start, end in parts])
    return np.maximum(found, _widened(coarse - coarse.mean(axis=0)))


def _widened(deviations: Floats) -> Floats:
    count = len(deviations)
    squares = np.einsum("ij,ij->j", deviations, deviations)
    kept = _correlations(deviations, squares)
    errors: Floats = np.sqrt(squares / (count - 1) / count * (1 + kept) / (1 - kept))
    return errors


def _correlations(deviations: Floats, squares: Floats) -> Floats:
    """Return the lag-1 autocorrelation of each column, without its bias, from 0 to the largest one."""
    count = len(deviations)
    products = np.einsum("ij,ij->j", deviations[1:], deviations[:-1])
    raw = np.divide(products, squares, out=np.zeros_like(squares), where=squares > 0)
    kept: Floats = np.clip((raw + 1 / count) / (1 - 3 / count), 0.0, LARGEST_CORRELATION)
    return kept


def _resampled(deviations: Floats) -> Floats:
    """Return series that are as dependent as these deviations from a mean, a column each."""
    count = len(deviations)
    own = _correlations(deviations[:, None], np.array([deviations @ deviations]))
    correlation = max(float(own[0]), SMALLEST_CORRELATION)
    innovations = deviations[1:] - correlation * deviations[:-1]
    series: Floats = np.take(innovations - innovations.mean(), _draws(count))
    series[0] /= math.sqrt(1 - correlation**2)
    for row in range(1, count):
        series[row] += correlation * series[row - 1]
    return series


def _edges(length: int, parts: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, length, parts + 1).astype(np.int64)


@lru_cache(maxsize=4)
def _draws(count: int) -> npt.NDArray[np.int64]:
    """Return which innovation each value of each resampled series takes."""
    return np.random.default_rng(SEED).integers(count - 1, size=(count, RESAMPLES))
