"""The intervals on simulated timings with known truth; the whole simulation is benchmarks/bench_statistics."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_statistics as simulation
from trtq.bench import Verdict, compare
from trtq.bench.statistics import mean_interval, percentile, percentile_intervals

COMPARISONS = 40


@pytest.mark.parametrize("family", simulation.FAMILIES)
def test_equal_engines_show_no_difference_and_three_percent_are_covered(family: str) -> None:
    equal = simulation.compared(family, 1.0, COMPARISONS)
    apart = simulation.compared(family, 1.03, COMPARISONS)
    assert equal["holds"] and apart["holds"]  # to hold 1 is to show no difference


@pytest.mark.parametrize("family", ["plain", "drifting", "throttled", "heavy-tailed"])
def test_three_percent_are_shown(family: str) -> None:
    assert simulation.compared(family, 1.03, 40)["difference_shown"] >= 0.9


@pytest.mark.parametrize("family", ["plain", "bimodal rounds", "autocorrelated", "throttled"])
def test_throughput_and_percentiles_are_covered(family: str) -> None:
    assert simulation.covered(family, COMPARISONS)["holds"]


def test_a_bootstrap_of_single_times_would_not_hold() -> None:
    rates = simulation.contrasted("autocorrelated", 40)["covered"]
    assert rates["iid bootstrap p50"] < 0.5 and rates["block bootstrap p50"] < 0.9


def test_the_margin_makes_small_differences_none() -> None:
    old, new = simulation.pair("plain", 1.03, np.random.default_rng(0))
    assert compare(old, new, margin=0.0).verdict is Verdict.SLOWER
    assert compare(new, old, margin=0.0).verdict is Verdict.FASTER
    assert compare(old, new, margin=0.05).verdict is Verdict.NO_DIFFERENCE_SHOWN


def test_percentiles_are_ranked_as_trtexec_ranks_them() -> None:
    values = np.arange(1.0, 201.0)
    assert [percentile(values, one) for one in (50, 90, 95)] == [100.5, 180, 190]
    assert percentile(values, 99) == 199  # 1 - 0.99f is a little less than 0.01
    assert percentile(np.array([7.0]), 99) == 7


def test_no_bound_is_given_where_the_times_do_not_reach() -> None:
    few = percentile_intervals(np.random.default_rng(0).lognormal(0, 0.1, 50), (50.0, 99.0))
    assert few[50.0].low is not None and few[50.0].high is not None
    assert few[99.0].low is not None and few[99.0].high is None


def test_a_skewed_mean_s_interval_reaches_further_up() -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 1000)
    found = mean_interval(values)
    assert found.low is not None and found.high is not None
    assert found.high - values.mean() > values.mean() - found.low > 0
