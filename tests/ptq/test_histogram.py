"""Histograms against NumPy's on the same values, and ranges against direct computation on the raw values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtq.config import QuantSpec
from trtq.ptq import Histogram, amax_of
from trtq.ptq.calibrators import START_BIN
from trtq.ptq.histogram import BINS

SHAPES = ("normal", "laplace", "relu", "relu6", "uniform", "heavy")


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray]:
    """A few arrays of one distribution, each of its own magnitude."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(SHAPES))
    values: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
        "normal": lambda size: random.normal(size=size),
        "laplace": lambda size: random.laplace(size=size),
        "relu": lambda size: np.maximum(random.normal(size=size), 0),
        "relu6": lambda size: np.clip(random.normal(2, 3, size=size), 0, 6),
        "uniform": lambda size: random.uniform(size=size),
        "heavy": lambda size: random.standard_t(3, size=size),
    }
    magnitudes = draw(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4))
    return [(values[shape]((3, draw(st.integers(400, 900)))) * one).astype(np.float32) for one in magnitudes]


def filled(arrays: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


@settings(max_examples=60, deadline=None)
@given(batches())
def test_it_counts_as_numpy_does_whatever_order_and_batches_values_come_in(arrays: list[np.ndarray]) -> None:
    histogram = filled(arrays)
    counts, edges = histogram.table()
    raw = np.abs(np.concatenate([array.ravel() for array in arrays]))
    assert np.array_equal(counts, np.histogram(raw.astype(np.float64), edges)[0])
    assert histogram.largest == raw.max() and edges[-2] <= raw.max() < edges[-1]
    assert raw.max() == 0 or BINS / 2 <= counts.size <= BINS
    for other in (arrays[::-1], np.array_split(np.concatenate([array.ravel() for array in arrays]), 7)):
        assert np.array_equal(filled(list(other)).counts, histogram.counts)


@settings(max_examples=60, deadline=None)
@given(batches(), st.floats(50, 100))
def test_percentile_is_that_of_the_raw_values_within_a_bin(arrays: list[np.ndarray], percent: float) -> None:
    histogram = filled(arrays)
    raw = np.abs(np.concatenate([array.ravel() for array in arrays]))
    found = amax_of(*histogram.table(), QuantSpec("percentile", percent))
    # Between two values far apart the rank decides, and it may fall on either where it is a whole number.
    ranks = np.clip([percent - 1e-9, percent + 1e-9], 0, 100)
    lowest, highest = np.percentile(raw, ranks, method="inverted_cdf")
    width = histogram.width * (1 + 1e-9)
    assert lowest - width <= found <= highest + width


@settings(max_examples=40, deadline=None)
@given(batches())
def test_mse_leaves_the_raw_values_no_more_error_than_any_other_range(arrays: list[np.ndarray]) -> None:
    histogram = filled(arrays)
    raw = np.abs(np.concatenate([array.ravel() for array in arrays])).astype(np.float64)

    def error(amax: float) -> float:
        scale = amax / 127
        return float(np.sqrt(np.mean((np.minimum(np.rint(raw / scale), 127) * scale - raw) ** 2)))

    counts, edges = histogram.table()
    found = error(amax_of(counts, edges, QuantSpec("mse")))
    candidates = ((edges[1:] + edges[:-1]) / 2)[START_BIN:]
    others = candidates[:: max(1, candidates.size // 200)] if candidates.size else edges[-1:]
    # A bin moves a value by half its width at most, and its error by no more: once for either of the two ranges.
    assert found <= min(map(error, others)) + histogram.width * (1 + 1e-9)


def test_zeros_count_and_have_no_range() -> None:
    histogram = filled([np.zeros((2, 5), np.float32)])
    assert histogram.counts[0] == 10 and histogram.largest == 0
    histogram.add(np.array([np.float16(3)]))
    assert histogram.counts.sum() == 11 and histogram.largest == 3


def test_the_extremes_of_float32_fit() -> None:
    values = np.array([np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1], np.float32)
    counts, edges = filled([values]).table()
    assert counts.sum() == 3 and edges[-2] <= values[0] < edges[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        filled([np.array([1, bad, 2], np.float32)])
