from __future__ import annotations

import sys

import numpy as np
import pytest

from trtq.bench import BenchResult, Verdict, compare
from trtq.errors import ConfigError

INTERLEAVED = {"order": ["a", "b"], "warmup": 1}


def skewed(random: np.random.Generator, median_us: float, count: int = 150) -> tuple[float, ...]:
    """Times as engines give them: a lognormal bulk and a few slow outliers."""
    times = median_us * random.lognormal(0, 0.05, count)
    times[random.random(count) < 0.03] *= 3
    return tuple(times.tolist())


@pytest.mark.parametrize("options", [{}, INTERLEAVED], ids=["apart", "interleaved"])
def test_equal_distributions_show_no_difference(options: dict[str, object]) -> None:
    verdicts = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        a, b = (BenchResult(name, "ort", 1, skewed(random, 500), options) for name in "ab")
        verdicts.append(compare(a, b, seed=seed, resamples=500).verdict)
    assert verdicts.count(Verdict.NO_DIFFERENCE_SHOWN) >= 93


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER)])
def test_ten_percent_are_detected(factor: float, verdict: Verdict) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        a, b = BenchResult("a", "ort", 1, skewed(random, 500)), BenchResult("b", "ort", 1, skewed(random, 500 * factor))
        speed = compare(a, b, seed=seed, resamples=500)
        assert speed.verdict is verdict
        assert speed.low <= speed.ratio <= speed.high
        assert speed.ratio == pytest.approx(factor, rel=0.03)


def test_pairs_keep_common_drift_out_of_the_interval() -> None:
    random = np.random.default_rng(0)
    drift = np.linspace(1, 1.5, 200)
    a = tuple((500 * drift * random.lognormal(0, 0.01, 200)).tolist())
    b = tuple((510 * drift * random.lognormal(0, 0.01, 200)).tolist())
    in_turn = compare(BenchResult("a", "ort", 1, a, INTERLEAVED), BenchResult("b", "ort", 1, b, INTERLEAVED))
    apart = compare(BenchResult("a", "ort", 1, a), BenchResult("b", "ort", 1, b))
    assert in_turn.verdict is Verdict.SLOWER
    assert apart.verdict is Verdict.NO_DIFFERENCE_SHOWN


def test_one_seed_gives_one_answer_and_small_chunks_no_other_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    a, b = BenchResult("a", "ort", 1, skewed(random, 500)), BenchResult("b", "ort", 1, skewed(random, 500))
    assert compare(a, b, seed=7) == compare(a, b, seed=7)
    assert compare(a, b, seed=7) != compare(a, b, seed=8)
    whole = compare(a, b)
    monkeypatch.setattr(sys.modules["trtq.bench.compare"], "CHUNK_VALUES", 1)
    assert compare(a, b).low == pytest.approx(whole.low, rel=0.01)


def test_what_cannot_be_compared_is_refused() -> None:
    times = tuple(float(value) for value in range(1, 21))
    base = BenchResult("a", "ort", 1, times, machine={"cpu": "x"})
    with pytest.raises(ConfigError, match="batches of 1 and 2"):
        compare(base, BenchResult("b", "ort", 2, times, machine={"cpu": "x"}))
    with pytest.raises(ConfigError, match="machine"):
        compare(base, BenchResult("b", "ort", 1, times, machine={"cpu": "y"}))
    with pytest.raises(ConfigError, match="fewer than 10"):
        compare(base, BenchResult("b", "ort", 1, times[:5], machine={"cpu": "x"}))
