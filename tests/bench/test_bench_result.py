from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.bench import BenchResult, from_json
from trtq.errors import ModelError

TIMES_US = st.lists(st.floats(0.01, 1e7), min_size=1, max_size=50)


@given(TIMES_US, st.integers(1, 64))
def test_figures_are_numpys_and_survive_a_file(times: list[float], batch: int) -> None:
    result = BenchResult("a", "ort", batch, tuple(times), {"warmup": 3, "order": ["a", "b"]}, {"cpu": "x"})
    expected = np.percentile(times, [50, 90, 95, 99])
    assert np.allclose([result.median_us, result.p90_us, result.p95_us, result.p99_us], expected, rtol=1e-12)
    assert result.throughput_per_s == pytest.approx(batch * len(times) * 1e6 / sum(times))
    assert from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize("times", [(), (1.0, 0.0), (float("nan"),), (-1.0,), (float("inf"),)])
def test_impossible_times_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="finite and above 0"):
        BenchResult("a", "ort", 1, times)


@pytest.mark.parametrize("document", [None, [], {}, {"trtq_bench": 2}, {"trtq_bench": 1, "name": "a"}])
def test_other_json_is_refused(document: object) -> None:
    with pytest.raises(ModelError):
        from_json(document)
