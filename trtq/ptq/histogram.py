"""Histograms of magnitudes that grow with what they see, in memory that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 4096
# Values are counted a block at a time, so that the copies that counting makes stay in the processor's cache.
BLOCK_VALUES = 1 << 16
# The smallest range; float32 still tells its bins apart.
LOWEST_EXPONENT = -100


class Histogram:
    """How often each magnitude occurs: BINS equal bins from 0 to the smallest power of two above all that was added.

    When a larger value comes, the range doubles and neighbouring bins merge. Bounds of bins are powers of two apart,
    so merging is exact: the counts depend on the values alone, never on their order or on how they were batched.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.largest = 0.0
        self._exponent = LOWEST_EXPONENT

    def add(self, values: Array) -> None:
        """Count the magnitudes of `values`, of any shape and float type; raises `ValueError` for one not finite."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, BLOCK_VALUES):
            self._add_block(np.abs(flat[start : start + BLOCK_VALUES].astype(np.float32, copy=False)))

    @property
    def width(self) -> float:
        """The width of a bin, in the values' own unit."""
        return float(np.ldexp(1.0, self._exponent) / BINS)

    def table(self) -> tuple[Array, Array]:
        """Return the counts up to the largest value, float64 (bins,), and their edges from 0, float64 (bins + 1,)."""
        used = min(BINS, int(self.largest / self.width) + 1)
        return self.counts[:used].astype(np.float64), np.arange(used + 1) * self.width

    def _add_block(self, magnitudes: npt.NDArray[np.float32]) -> None:
        largest = float(magnitudes.max())
        if not np.isfinite(largest):
            raise ValueError("a value is not finite")
        if largest > self.largest:
            self.largest = largest
            self._widen(int(np.frexp(largest)[1]))
        places = (magnitudes * np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(places, minlength=BINS)

    def _widen(self, exponent: int) -> None:
        if exponent <= self._exponent:
            return
        merged = 1 << min(exponent - self._exponent, BINS.bit_length() - 1)
        kept = self.counts.reshape(-1, merged).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[: kept.size] = kept
        self._exponent = exponent
