from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.bench import BenchResult, Stated, from_json
from trtq.errors import ModelError

TIMES_US = st.lists(st.integers(10, 10**10).map(lambda value: value / 1000), min_size=1, max_size=50)
STATED = Stated(1000.0, 990.0, {50.0: 980.0, 99.0: 1200.0}, 3000, 900.0, 1300.0, {"enqueue": 5.0})


@given(TIMES_US, st.integers(1, 64))
def test_figures_follow_from_the_times_and_survive_a_file(times: list[float], batch: int) -> None:
    result = BenchResult(
        "a", "ort", batch, tuple(times), {"streams": 1}, {"cpu": "x"}, "ONNX Runtime 1", "r", (len(times),),
        {"compute": tuple(times)}, 2.0, {"cpu_mhz": 2000.0}, STATED, ("drifted",),
    )  # fmt: skip
    assert result.median_us == pytest.approx(float(np.median(times)))
    assert min(times) <= result.median_us <= result.p90_us <= result.p95_us <= result.p99_us <= max(times)
    assert result.throughput_per_s == batch * len(times) / 2.0
    assert from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_without_a_wall_s_time_runs_follow_each_other() -> None:
    assert BenchResult("a", "ort", 4, (1000.0, 3000.0)).throughput_per_s == pytest.approx(2000)


def test_a_summary_without_times_tells_what_it_states_and_no_more() -> None:
    result = BenchResult("a", "trtexec", 1, (), stated=STATED)
    assert (result.throughput_qps, result.median_us, result.p99_us) == (1000.0, 980.0, 1200.0)
    assert result.part_us("enqueue") == 5.0 and math.isnan(result.part_us("to_host")) and math.isnan(result.p90_us)
    assert result.intervals() == {}
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["figures"]["p90_us"] is None and from_json(document) == result


def test_intervals_hold_the_figures() -> None:
    result = BenchResult("a", "ort", 1, tuple(np.random.default_rng(0).lognormal(6, 0.1, 2000).tolist()))
    bounds = result.intervals()
    assert list(bounds) == ["throughput_qps", "p50_us", "p90_us", "p95_us", "p99_us"]
    figures = (result.throughput_qps, *(result.percentile_us(one) for one in (50, 90, 95, 99)))
    for value, one in zip(figures, bounds.values(), strict=True):
        assert one.low is not None and one.high is not None and one.low < value < one.high
        assert one.high / one.low < 1.1
    assert BenchResult("a", "ort", 1, (1.0,) * 9).intervals() == {}


@pytest.mark.parametrize("times", [(), (1.0, 0.0), (float("nan"),), (-1.0,), (float("inf"),)])
def test_impossible_times_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="finite and above 0"):
        BenchResult("a", "ort", 1, times)


def test_rounds_must_add_up() -> None:
    with pytest.raises(ModelError, match="add up"):
        BenchResult("a", "ort", 1, (1.0, 2.0), rounds=(1,))


@pytest.mark.parametrize("document", [None, [], {}, {"trtq_bench": 1}, {"trtq_bench": 2, "name": "a"}])
def test_other_json_is_refused(document: object) -> None:
    with pytest.raises(ModelError):
        from_json(document)
