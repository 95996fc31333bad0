from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trtq.bench import BenchResult, Stated, Verdict, compare, differences
from trtq.bench.compare import APART_MARGIN, MARGIN
from trtq.errors import ConfigError

ROUNDS = (10,) * 50


def result(name: str, factor: float = 1.0, *, seed: int = 0, run: str = "one") -> BenchResult:
    """Times as engines give them: a lognormal bulk and a few slow outliers, on a machine that drifts."""
    random = np.random.default_rng(seed + ord(name))
    times = 500 * factor * random.lognormal(0, 0.02, sum(ROUNDS)) * np.linspace(1, 1.4, sum(ROUNDS))
    times[random.random(len(times)) < 0.03] *= 3
    return BenchResult(name, "ort", 1, tuple(times.tolist()), machine={"cpu": "x"}, run=run, rounds=ROUNDS)


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER)])
def test_ten_percent_are_detected(factor: float, verdict: Verdict) -> None:
    for seed in range(10):
        speed = compare(result("a", seed=seed), result("b", factor, seed=seed))
        assert speed.verdict is verdict and speed.paired and speed.margin == MARGIN
        assert speed.low <= speed.ratio <= speed.high
        assert speed.ratio == pytest.approx(factor, rel=0.02)


def test_rounds_keep_common_drift_out_of_the_interval() -> None:
    in_turn = compare(result("a"), result("b", 1.04))
    apart = compare(result("a"), result("b", 1.04, run="two"))
    assert in_turn.verdict is Verdict.SLOWER
    assert apart.verdict is Verdict.NO_DIFFERENCE_SHOWN and not apart.paired and apart.margin == APART_MARGIN
    assert apart.high - apart.low > 5 * (in_turn.high - in_turn.low)


@pytest.mark.parametrize("run", ["one", "two"])
def test_equal_input_gives_equal_output_and_the_other_way_round_its_inverse(run: str) -> None:
    a, b = result("a"), result("b", 1.05, run=run)
    assert compare(a, b) == compare(a, b)
    there, back = compare(a, b), compare(b, a)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)


@pytest.mark.parametrize("rounds", [(), (1,) * 500, (100,) * 5, (499, 1)])
def test_any_cut_into_rounds_will_do(rounds: tuple[int, ...]) -> None:
    a, b = (replace(one, rounds=rounds) for one in (result("a"), result("b", 1.2)))
    assert compare(a, b).verdict is Verdict.SLOWER


B = result("b")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(B, batch=2), "batches of 1 and 2"),
        (replace(B, dialect="TensorRT 8.6.1"), "run by an unknown library and TensorRT 8.6.1"),
        (replace(B, machine={"cpu": "y"}), r"different machines \(cpu: x and y\)"),
        (
            replace(B, machine={"cpu": "x", "gpus": [{"name": "T4"}]}),
            r"different machines \(gpus: null and T4\)",
        ),
        (replace(B, machine={"cpu": "x", "packages": {"onnxruntime": "1"}}), "different software"),
        (replace(B, options={"cuda_graph": True}), "measured with cuda graph untold and on"),
        (replace(B, options={"streams": 1}), "measured with streams untold and 1"),
        (replace(B, times_us=(1.0,) * 9, rounds=()), "fewer than 10"),
        (replace(B, times_us=(), rounds=(), stated=Stated(1.0, 1.0, {})), "summary without single times"),
    ],
)
def test_what_cannot_be_compared_says_why(other: BenchResult, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compare(result("a"), other)


def test_clocks_count_between_measurements_and_not_inside_one() -> None:
    slow = {"gpu_sm_mhz": 1000.0, "power_mode": "15W"}
    fast = {"gpu_sm_mhz": 1300.0, "power_mode": "MAXN"}
    a = replace(result("a"), clocks=slow)
    assert differences(a, replace(result("b"), clocks=fast)) == ()
    assert differences(a, replace(result("b", run="two"), clocks=fast)) == (
        "different clocks (gpu_sm_mhz 1000 and 1300)",
        "different clocks (power_mode: 15W and MAXN)",
    )
    assert differences(a, replace(result("b", run="two"), clocks={**slow, "gpu_sm_mhz": 1010.0})) == ()


def test_software_that_runs_no_engine_does_not_matter() -> None:
    one, other = ({"cpu": "x", "python": version, "packages": {"numpy": version}} for version in ("1", "2"))
    assert differences(replace(result("a"), machine=one), replace(result("b"), machine=other)) == ()
