"""Calibrators: the amax of a tensor from the histogram of its magnitudes.

The same answers as pytorch-quantization's, whose `mse` needs a CUDA driver and whose `entropy` takes seconds a tensor;
`counts` are float64 (bins,), `edges` float64 (bins + 1,) rising from 0, the result is in the tensor's own unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.config import QuantSpec
from trtq.errors import DataError
from trtq.qdq import statistics

Array = npt.NDArray[Any]
LEVELS = 128
# Ranges below this many bins are not tried: 128 levels need at least as many bins to mean anything.
START_BIN = 128
ROWS = 256


def amax_of(counts: Array, edges: Array, spec: QuantSpec) -> float:
    """Return a histogram's range by `spec.calibrator`; raises `DataError` if it is empty."""
    if not counts.sum():
        raise DataError("calibration saw no values; give at least one calibration image")
    return METHODS[spec.calibrator](counts, edges, spec)


def maximum(counts: Array, edges: Array, _: QuantSpec) -> float:
    """Return the upper edge of the last bin that holds a value."""
    return float(edges[np.flatnonzero(counts)[-1] + 1])


def percentile(counts: Array, edges: Array, spec: QuantSpec) -> float:
    """Return the edge below which `spec.percentile` percent of the values lie, at least the first above 0."""
    share = np.cumsum(counts / counts.sum())
    place = int(np.searchsorted(share, spec.percentile / 100))
    return float(edges[min(max(1, place), edges.size - 1)])


def mse(counts: Array, edges: Array, _: QuantSpec) -> float:
    """Return the range with the least mean squared error of 8-bit symmetric quantization of the bin centres.

    The error of a candidate is the sum over its 128 levels of n (x - level)^2, taken from running sums over the bins,
    so that a candidate costs 128 look-ups instead of a pass over the bins.
    """
    centers = (edges[1:] + edges[:-1]) / 2
    candidates = centers[START_BIN:]
    if not candidates.size:
        return float(edges[-1])
    numbers, sums = _running(counts), _running(counts * centers)

    def gains(some: Array) -> Array:
        """Return the error of candidates less the sum of n x^2, which is the same for all."""
        steps = some / (LEVELS - 1)
        ends = np.searchsorted(centers, np.outer(steps, np.arange(LEVELS - 1) + 0.5))
        bounds = np.pad(ends, ((0, 0), (1, 1)), constant_values=((0, 0), (0, centers.size)))
        levels = np.outer(steps, np.arange(LEVELS))
        inside, total = np.diff(numbers[bounds], axis=1), np.diff(sums[bounds], axis=1)
        result: Array = np.sum(levels * (levels * inside - 2 * total), axis=1)
        return result

    return float(candidates[int(np.argmin(_in_parts(gains, candidates)))])


def entropy(counts: Array, edges: Array, _: QuantSpec) -> float:
    """Return the range whose 128-level quantization diverges least (Kullback-Leibler) from the clipped histogram.

    Source: TensorRT's entropy calibration (Migacz, "8-bit inference with TensorRT", GTC 2017), as pytorch-quantization
    implements it; of equal divergences the widest range. With p = reference / N and q = levels / H, sum p log(p / q)
    falls into running sums over bins and 128 levels a range, instead of a pass over the bins for each range.
    """
    bins = counts.copy()
    bins[0] = bins[1] if bins.size > 1 else bins[0]  # the zero bin would dominate; both implementations level it
    total = bins.sum()
    if bins.size < START_BIN or not total:
        return float(edges[-1])
    heads, filled, own = _running(bins), _running(bins > 0), _running(_times_log(bins))

    def divergences(stops: Array) -> Array:
        bounds = -(-np.outer(stops, np.arange(LEVELS + 1)) // LEVELS)
        head, last = heads[stops], bins[stops - 1]
        clipped = total - head
        mass = np.diff(heads[bounds], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(mass / np.diff(filled[bounds], axis=1))
            cross = np.where(mass > 0, mass * logs, 0).sum(axis=1) + np.where(clipped > 0, clipped * logs[:, -1], 0)
            reference = own[stops - 1] + _times_log(last + clipped)
            result: Array = (reference - cross) / total + np.log(head / total)
        # Where the levels have no mass but the reference has, the divergence is infinite.
        result[(clipped > 0) & (last == 0)] = np.inf
        return result

    stops = np.arange(START_BIN, bins.size + 1)
    found = _in_parts(divergences, stops)
    return float(edges[stops[found.size - 1 - int(np.argmin(found[::-1]))]])


METHODS: dict[str, Callable[[Array, Array, QuantSpec], float]] = {
    "max": maximum,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def sqnr_db(counts: Array, edges: Array, amax: float) -> float:
    """Return the signal-to-noise ratio that 8-bit rounding and clipping at a range leave of a histogram's values."""
    centers = (edges[1:] + edges[:-1]) / 2
    step = amax / (LEVELS - 1)
    errors = np.minimum(np.rint(centers / step), LEVELS - 1) * step - centers
    return statistics.sqnr_db(float(counts @ centers**2), float(counts @ errors**2))


def _in_parts(function: Callable[[Array], Array], values: Array) -> Array:
    """Return `function` of all values, some at a time: its rows of 128 levels stay in the processor's cache."""
    return np.concatenate([function(values[start : start + ROWS]) for start in range(0, values.size, ROWS)])


def _running(values: Array) -> Array:
    """Return sums of the first 0, 1, 2, ... values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(values: Array) -> Array:
    result: Array = values * np.log(np.where(values > 0, values, 1))
    return result
