"""What every interval is resampled from: as dependent as the series, as uncertain as its blocks are few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bench_statistics import autoregression
from trtq.bench.bootstrap import MOST_BLOCKS, RESAMPLES, Floats, Spread, means_of, spread, standard_error

NOISE = np.random.default_rng(0).normal(size=(20, MOST_BLOCKS))


def dependent(correlation: float, series: int) -> list[Floats]:
    return [autoregression(MOST_BLOCKS, correlation, np.random.default_rng(seed)) for seed in range(series)]


def test_autocorrelation_widens_the_error() -> None:
    walk = np.cumsum(NOISE[0])
    assert standard_error(walk) > 3 * walk.std() / math.sqrt(len(walk))
    assert standard_error(NOISE[0]) < 1.5 * NOISE[0].std() / math.sqrt(len(walk))


def test_the_error_is_widened_by_the_autocorrelation_without_its_bias() -> None:
    pairs = np.tile([0.0, 0.0, 1.0, 1.0], 3)  # lag 1: 1/12, by Kendall's formula 2/9
    assert standard_error(pairs) == pytest.approx(math.sqrt(3 / 11 / 12 * (1 + 2 / 9) / (1 - 2 / 9)))


def test_what_only_longer_blocks_show_widens_it_too() -> None:
    hidden = NOISE[0] + 0.6 * np.repeat(NOISE[1][:10], 10)
    assert standard_error(hidden) == pytest.approx(standard_error(means_of(hidden, 25)))
    assert standard_error(hidden) > 1.2 * standard_error(NOISE[0])


def test_values_that_are_equal_have_no_spread() -> None:
    same = spread(np.full(100, 2.0))
    assert (same.error, same.critical(0.95), same.half_width(0.95)) == (0, 0, 0)


@pytest.mark.parametrize(("count", "least", "most"), [(10, 2.3, 3.5), (25, 2.0, 2.6), (100, 1.9, 2.2)])
def test_independent_normal_blocks_have_student_s_critical_value(count: int, least: float, most: float) -> None:
    """2.26, 2.06 and 1.98 by the tables; of few blocks more, since their dependence is known less."""
    found = np.median([spread(one[:count]).critical(0.95) for one in NOISE])
    assert least < found < most


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_interval_of_a_mean_holds_the_truth_at_its_rate(correlation: float) -> None:
    series = dependent(correlation, 300)
    found = sum(abs(one.mean()) <= spread(one).half_width(0.95) for one in series)
    assert found / len(series) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(series))


def test_resampled_means_vary_as_the_means_of_such_series_do() -> None:
    series = dependent(0.6, 1000)
    true = np.std([one.mean() for one in series])
    assert np.median([spread(one).means.std() for one in series[:40]]) == pytest.approx(true, rel=0.25)


def test_the_quantile_of_few_resamples_is_taken_so_high_that_it_is_seldom_too_low() -> None:
    """Of 4,000 uniform draws the value at the taken rank lies below the true quantile in about 5 %, not in half."""
    errors = np.ones(RESAMPLES)
    found = [
        Spread(1.0, 1 + np.random.default_rng(seed).random(RESAMPLES), errors).critical(0.95) for seed in range(400)
    ]
    too_low = np.mean(np.array(found) < 1.95)
    assert 0.01 < too_low < 0.1


def test_a_lower_rate_needs_less_width() -> None:
    one = spread(NOISE[0])
    assert one.half_width(0.5) < one.half_width(0.9) < one.half_width(0.95) < one.half_width(0.99)


def test_one_rare_value_widens_the_interval_and_does_not_blow_it_up() -> None:
    rare = np.zeros(100)
    rare[50] = 1
    assert 3 < spread(rare).critical(0.95) < 6


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=10, max_size=60), st.floats(0.01, 100), st.floats(-100, 100), st.booleans()
)
def test_the_width_follows_the_unit_and_not_the_origin(
    values: list[float], scale: float, shift: float, turned: bool
) -> None:
    blocks = np.round(np.array(values), 3)
    moved = (-scale if turned else scale) * blocks + shift
    expected = scale * spread(blocks).half_width(0.95)
    assert spread(moved).half_width(0.95) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_difference_taken_the_other_way_round_is_as_wide() -> None:
    one, other = spread(NOISE[0]), spread(np.cumsum(NOISE[1][:30]))
    assert one.less(other).half_width(0.95) == pytest.approx(other.less(one).half_width(0.95), rel=1e-12)
    assert one.less(other).error == math.hypot(one.error, other.error)
    # Series measured apart: their resamples do not go together, even where both series are the same.
    twice = one.less(one)
    assert abs(np.corrcoef(one.means, one.means - twice.means)[0, 1]) < 0.1


def test_parts_are_as_equal_as_can_be() -> None:
    assert means_of(np.arange(7.0), 3).tolist() == [0.5, 2.5, 5.0]
