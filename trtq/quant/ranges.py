"""Ranges: the amax of a tensor from the histogram of its absolute values.

The same answers as pytorch-quantization's calibrators, whose `mse` needs a CUDA driver and whose `entropy` takes
seconds a tensor; `counts` are float64 (bins,), `edges` float64 (bins + 1,) rising from 0, the result is in the
tensor's own unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.config import QuantSpec
from trtq.errors import DataError

Array = npt.NDArray[Any]
LEVELS = 128
# Ranges below this many bins are not tried: 128 levels need at least as many bins to mean anything.
START_BIN = 128
CHUNK_ELEMENTS = 1 << 22


def amax_of(counts: Array, edges: Array, spec: QuantSpec) -> float:
    """Return a histogram's range by `spec.calibrator` (percentile, mse, entropy); raises `DataError` if empty."""
    if not counts.sum():
        raise DataError("calibration saw no values; give at least one calibration image")
    return METHODS[spec.calibrator](counts, edges, spec)


def percentile(counts: Array, edges: Array, spec: QuantSpec) -> float:
    """Return the edge below which `spec.percentile` percent of the values lie."""
    share = np.cumsum(counts / counts.sum())
    return float(edges[np.searchsorted(share, spec.percentile / 100)])


def mse(counts: Array, edges: Array, _: QuantSpec) -> float:
    """Return the range with the least mean squared error of 8-bit symmetric quantization of the bin centres."""
    centers = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    candidates = centers[START_BIN:]
    if not candidates.size:
        return float(edges[-1])
    rows = max(1, CHUNK_ELEMENTS // centers.size)
    errors = [_squared_errors(counts, centers, candidates[i : i + rows]) for i in range(0, candidates.size, rows)]
    return float(candidates[int(np.argmin(np.concatenate(errors)))])


def entropy(counts: Array, edges: Array, _: QuantSpec) -> float:
    """Return the range whose 128-level quantization diverges least (Kullback-Leibler) from the clipped histogram.

    Source: TensorRT's entropy calibration (Migacz, GTC 2017), as pytorch-quantization implements it.
    """
    bins = counts.copy()
    bins[0] = bins[1]  # the zero bin would dominate; both implementations level it
    divergences = [_divergence(bins, stop) for stop in range(START_BIN, bins.size + 1)]
    if not divergences:
        return float(edges[-1])
    last = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return float(edges[START_BIN + last])


METHODS: dict[str, Callable[[Array, Array, QuantSpec], float]] = {
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def _squared_errors(counts: Array, centers: Array, candidates: Array) -> Array:
    scale = (np.float32(LEVELS - 1) / candidates)[:, None]
    rounded = np.clip(np.rint(centers * scale), -(LEVELS - 1), LEVELS - 1) / scale
    errors: Array = ((rounded - centers) ** 2) @ counts
    return errors


def _divergence(bins: Array, stop: int) -> float:
    head, tail = bins[:stop], bins[stop:].sum()
    # np.digitize over linspace(0, stop, 129), as an index per bin
    level = np.digitize(np.arange(stop), np.linspace(0, stop, LEVELS + 1)) - 1
    filled = head > 0
    mass = np.bincount(level[filled], head[filled], LEVELS)
    width = np.bincount(level[filled], minlength=LEVELS)
    density = np.divide(mass, width, out=np.zeros(LEVELS), where=width > 0)
    candidate = np.where(filled, density[level], 0.0)
    reference = head.copy()
    reference[-1] += tail
    # Where the candidate has no mass but the reference has, the divergence is infinite.
    if ((reference > 0) & (candidate == 0)).any():
        return float("inf")
    p, q = reference / reference.sum(), candidate / candidate.sum()
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))
