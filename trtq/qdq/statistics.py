"""Statistics of activations: magnitudes in bins, from which the noise of int8 rounding follows for any scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.errors import DataError

# Runs a network over images and yields the values of the named tensors, image by image or batch by batch.
Observe = Callable[[ir.Model, Sequence[str]], Iterable[Mapping[str, npt.NDArray[Any]]]]

BINS_PER_OCTAVE = 8
LARGEST_EXPONENT = 60
BINS = 2 * LARGEST_EXPONENT * BINS_PER_OCTAVE
INT8_MAX = 127
# No noise is taken for less than float32's own rounding: 140 dB below the signal.
NOISE_FLOOR = 1e-14


@dataclass(frozen=True)
class Statistics:
    """How large a tensor's values are: how many, and for each bin of |x| their number, sum and sum of squares.

    Bins are an eighth of an octave wide, so that no range has to be known beforehand. The arrays are float64 (BINS,).
    """

    count: int
    numbers: npt.NDArray[Any]
    sums: npt.NDArray[Any]
    squares: npt.NDArray[Any]

    @staticmethod
    def of(values: npt.NDArray[Any]) -> Statistics:
        """Return the statistics of one array of any shape and float type."""
        magnitudes = np.abs(values, dtype=np.float64).ravel()
        present = magnitudes[magnitudes > 0]
        places = np.floor((np.log2(present) + LARGEST_EXPONENT) * BINS_PER_OCTAVE)
        bins = np.clip(places, 0, BINS - 1).astype(np.intp)
        numbers, sums, squares = (
            np.bincount(bins, weights, minlength=BINS) for weights in (None, present, np.square(present))
        )
        return Statistics(magnitudes.size, numbers.astype(np.float64), sums, squares)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count,
            self.numbers + other.numbers,
            self.sums + other.sums,
            self.squares + other.squares,
        )

    @property
    def power(self) -> float:
        """The mean square, in the tensor's unit squared."""
        return float(self.squares.sum()) / max(1, self.count)

    def noise(self, scale: float) -> float:
        """Return the mean square error of symmetric int8 at `scale`.

        Inside the range scale^2 / 12, the uniform quantizer's noise; what is rounded to zero loses its own square, an
        exact zero nothing; what is clipped loses (|x| - 127 scale)^2.
        """
        largest = INT8_MAX * scale
        means = self.sums / np.maximum(self.numbers, 1)
        clipped = self.squares - 2 * largest * self.sums + largest**2 * self.numbers
        errors = np.where(means < scale / 2, self.squares, self.numbers * scale**2 / 12)
        errors = np.where(means > largest + scale / 2, clipped, errors)
        return max(0.0, float(errors.sum())) / max(1, self.count)

    def sqnr_db(self, scale: float) -> float:
        """Return the signal-to-quantization-noise ratio at `scale`."""
        return sqnr_db(self.power, self.noise(scale))


def sqnr_db(power: float, noise: float) -> float:
    """Return 10 log10 of signal power over noise power, at most 140 dB; 140 dB for no signal at all."""
    floor = NOISE_FLOOR * power
    return 10 * math.log10(power / max(noise, floor)) if power > 0 and floor > 0 else -10 * math.log10(NOISE_FLOOR)


def collect(model: ir.Model, tensors: Sequence[str], observe: Observe) -> dict[str, Statistics]:
    """Return the statistics of each of `tensors` over all that `observe` yields; raises `DataError` without images."""
    found: dict[str, Statistics] = {}
    names = tuple(dict.fromkeys(tensors))
    for values in observe(model, names) if names else ():
        for name in names:
            one = Statistics.of(values[name])
            found[name] = found[name] + one if name in found else one
    if len(found) < len(names):
        raise DataError("there are no calibration images; give at least one")
    return found
