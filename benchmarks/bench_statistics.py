"""The statistics of `trtq bench` on simulated timings whose truth is known: coverage, false alarms, power.

Seven families: plain (independent, lognormal), bimodal runs, bimodal rounds (a round is fast or slow as a whole),
drifting (15 % slower over the run), throttled (35 % slower in random episodes that begin and end inside rounds),
heavy-tailed (3 % of runs slowed by a Pareto factor), autocorrelated (a first-order autoregression of each engine's own,
50 runs long). A comparison is two engines in turn, 100 rounds of 20 runs each, in random order inside a round.

Claims: the interval of the ratio holds the truth at its stated rate of 95 %, for equal engines and for a true 3 %; two
equal engines give "no difference shown" in at least 95 % of the comparisons even with a margin of 0; the intervals of
the throughput and of each percentile hold the truth in at least 95 %. Coverage holds unless it falls short by more than
three standard errors of the simulation itself; the rates are recorded as they are. Beside them stand the methods that
were not taken: bootstraps of single times and of blocks; and what too few blocks cost, where each depends on the last.

    python -m benchmarks.bench_statistics
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.recording import record
from trtq.bench import BenchResult, Verdict, compare
from trtq.bench.bootstrap import spread
from trtq.bench.result import PERCENTS
from trtq.bench.statistics import CONFIDENCE, mean_interval, percentile, percentile_intervals

Floats = npt.NDArray[np.float64]
ROUNDS, RUNS = 100, 20
COUNT = ROUNDS * RUNS
COMPARISONS, SERIES, CONTRASTED, FEW = 1000, 1000, 200, 1000
TRUE_DIFFERENCE = 1.03
DRIFT, THROTTLE = 0.15, 1.35
TRUTH_DRAWS = 1_000_000
RESAMPLES, BLOCK = 400, 80
FEW_BLOCKS, FEW_CORRELATIONS = (10, 25, 50), (0.0, 0.5, 0.8)
STANDARD_ERRORS = 3
ALL = "throughput", *(f"p{percent:g}" for percent in PERCENTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=COMPARISONS, help="of each family")
    options = parser.parse_args()
    started = time.perf_counter()
    families = {name: family(name, options.comparisons) for name in FAMILIES}
    few = few_blocks(min(FEW, options.comparisons))
    holds = {
        "ratio's interval covers the truth, equal engines": all(one["equal"]["holds"] for one in families.values()),
        "ratio's interval covers the truth, 3 % apart": all(one["apart"]["holds"] for one in families.values()),
        "equal engines: no difference shown in at least 95 %": all(
            one["equal"]["no_difference_shown"] >= CONFIDENCE for one in families.values()
        ),
        "throughput and percentiles covered": all(one["single"]["holds"] for one in families.values()),
    }
    for name, one in families.items():
        equal, apart, single = one["equal"], one["apart"], one["single"]
        print(
            f"{name:16} equal: no difference {equal['no_difference_shown']:.3f}, 3 % apart: covered "
            f"{apart['covered']:.3f}, shown {apart['difference_shown']:.3f}; {single['covered']}"
        )
    print(f"few blocks: {few['covered']}")
    print(holds)
    record(
        "bench_statistics",
        "python -m benchmarks.bench_statistics",
        {
            "holds": holds,
            "families": families,
            "few_blocks": few,
            "seconds": round(time.perf_counter() - started, 1),
        },
    )


def family(name: str, comparisons: int) -> dict[str, Any]:
    return {
        "equal": compared(name, 1.0, comparisons),
        "apart": compared(name, TRUE_DIFFERENCE, comparisons),
        "single": covered(name, min(SERIES, comparisons)),
        "not_taken": contrasted(name, min(CONTRASTED, comparisons)),
    }


def compared(name: str, factor: float, comparisons: int) -> dict[str, Any]:
    """Compare so many pairs of engines, one `factor` times as slow as the other."""
    covered = shown = 0
    widths = []
    for seed in range(comparisons):
        random = np.random.default_rng([seed, round(1000 * factor)])
        speed = compare(*pair(name, factor, random), margin=0.0)
        covered += speed.low <= factor <= speed.high
        shown += speed.verdict is not Verdict.NO_DIFFERENCE_SHOWN
        widths.append((speed.high - speed.low) / 2)
    return {
        "comparisons": comparisons,
        "true_ratio": factor,
        "covered": covered / comparisons,
        "holds": holds(covered, comparisons),
        "no_difference_shown": 1 - shown / comparisons,
        "difference_shown": shown / comparisons,
        "median_half_width": round(float(np.median(widths)), 5),
    }


def pair(name: str, factor: float, random: np.random.Generator) -> tuple[BenchResult, BenchResult]:
    """Return the results of two engines, measured in turn on one machine."""
    first = np.repeat(random.random(ROUNDS) < 0.5, 2)
    turns = np.where(np.arange(2 * ROUNDS) % 2 == 0, first, ~first)
    mine = np.repeat(turns, RUNS)
    state = ENVIRONMENTS.get(name, steady)(2 * COUNT, random)
    times = np.empty(2 * COUNT)
    times[mine] = FAMILIES[name](COUNT, random)
    times[~mine] = FAMILIES[name](COUNT, random) * factor
    times *= state * 500
    return tuple(  # type: ignore[return-value]
        BenchResult(label, "simulated", 1, tuple(one.tolist()), run="one", rounds=(RUNS,) * ROUNDS)
        for label, one in (("a", times[mine]), ("b", times[~mine]))
    )


def covered(name: str, series: int) -> dict[str, Any]:
    """Take the intervals of so many single series, and count those that hold the truth."""
    common = truth(name, np.ones(1), TRUTH_DRAWS) if name not in ENVIRONMENTS else None
    found = dict.fromkeys(ALL, 0)
    unbounded = dict.fromkeys(ALL, 0)
    for seed in range(series):
        random = np.random.default_rng([seed, 7])
        state = ENVIRONMENTS.get(name, steady)(COUNT, random)
        times = FAMILIES[name](COUNT, random) * state
        true = truth(name, state, 40 * COUNT, random) if common is None else common
        intervals = dict(zip(ALL, (mean_interval(times), *percentile_intervals(times, PERCENTS).values()), strict=True))
        for one, interval in intervals.items():
            found[one] += (interval.low is None or interval.low <= true[one]) and (
                interval.high is None or true[one] <= interval.high
            )
            unbounded[one] += interval.low is None or interval.high is None
    return {
        "series": series,
        "covered": {one: float(count / series) for one, count in found.items()},
        "without_an_upper_bound": {one: count / series for one, count in unbounded.items()},
        "holds": all(holds(count, series) for count in found.values()),
    }


def truth(name: str, state: Floats, draws: int, random: np.random.Generator | None = None) -> dict[str, float]:
    """Return the true figures: of the family's own distribution, in the states that the machine was in."""
    random = random or np.random.default_rng(1)
    if name == "autocorrelated":  # its marginal distribution
        values = np.exp(random.normal(0, math.hypot(OWN, NOISE), draws))
    else:
        values = FAMILIES[name](draws // COUNT * COUNT, random)
    values = np.sort(values * np.resize(state, len(values)))
    return {"throughput": float(values.mean())} | {f"p{one:g}": percentile(values, one) for one in PERCENTS}


def contrasted(name: str, series: int) -> dict[str, Any]:
    """Return how often the bootstraps that were not taken hold the true median and p99."""
    if name in ENVIRONMENTS:
        return {}
    true = truth(name, np.ones(1), TRUTH_DRAWS)
    found = {f"{method} {one}": 0 for method in ("iid bootstrap", "block bootstrap") for one in ("p50", "p99")}
    for seed in range(series):
        random = np.random.default_rng([seed, 7])
        times = FAMILIES[name](COUNT, random)
        ordered = np.sort(times)
        ranks = np.searchsorted(ordered, times).astype(np.uint16)  # short numbers are sorted much faster
        for method, block in (("iid bootstrap", 1), ("block bootstrap", BLOCK)):
            blocks = ranks.reshape(-1, block)
            drawn = np.sort(blocks[random.integers(len(blocks), size=(RESAMPLES, len(blocks)))].reshape(RESAMPLES, -1))
            for one, rank in (("p50", COUNT // 2), ("p99", COUNT - 1 - COUNT // 100)):
                low, high = np.quantile(ordered[drawn[:, rank]], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
                found[f"{method} {one}"] += low <= true[one] <= high
    return {"series": series, "covered": {one: float(count / series) for one, count in found.items()}}


def few_blocks(series: int) -> dict[str, Any]:
    """Return how often the interval of a mean holds the truth where so few blocks are a first-order autoregression."""
    found = {}
    for count in FEW_BLOCKS:
        for correlation in FEW_CORRELATIONS:
            covered = 0
            for seed in range(series):
                blocks = autoregression(count, correlation, np.random.default_rng([seed, count]))
                covered += abs(blocks.mean()) <= spread(blocks).half_width(CONFIDENCE)
            found[f"{count} blocks, correlation {correlation:g}"] = float(covered / series)
    return {"series": series, "covered": found}


def autoregression(count: int, correlation: float, random: np.random.Generator) -> Floats:
    """Return a stationary first-order autoregression of variance 1."""
    steps = random.normal(size=count)
    steps[1:] *= math.sqrt(1 - correlation**2)
    return np.fromiter(accumulate(steps.tolist(), lambda last, step: correlation * last + step), np.float64, count)


def holds(covered: int, trials: int) -> bool:
    """Tell whether a rate is the stated one, up to what the number of trials leaves open."""
    return covered / trials >= CONFIDENCE - STANDARD_ERRORS * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / trials)


OWN, NOISE, CORRELATION = 0.03, 0.01, 0.98


def plain(count: int, random: np.random.Generator) -> Floats:
    return random.lognormal(0, 0.03, count)


def bimodal(count: int, random: np.random.Generator) -> Floats:
    return np.where(random.random(count) < 0.35, 1.2, 1.0) * random.lognormal(0, NOISE, count)


def bimodal_rounds(count: int, random: np.random.Generator) -> Floats:
    return np.repeat(np.where(random.random(count // RUNS) < 0.4, 1.1, 1.0), RUNS) * random.lognormal(0, NOISE, count)


def heavy_tailed(count: int, random: np.random.Generator) -> Floats:
    slowed = np.where(random.random(count) < 0.03, 1 + random.pareto(2.5, count), 1.0)
    return slowed * random.lognormal(0, 0.02, count)


def autocorrelated(count: int, random: np.random.Generator) -> Floats:
    return np.exp(OWN * autoregression(count, CORRELATION, random)) * random.lognormal(0, NOISE, count)


def steady(count: int, random: np.random.Generator) -> Floats:
    return np.ones(count)


def drift(count: int, random: np.random.Generator) -> Floats:
    return 1 + DRIFT * (1 - np.exp(-3 * np.arange(count) / count))


def throttle(count: int, random: np.random.Generator) -> Floats:
    """Return the machine's state: fast and throttled episodes of exponential length."""
    state, place, slow = np.ones(count), 0, bool(random.random() < 0.3)
    while place < count:
        length = int(random.exponential(count / 10 if slow else count / 6)) + 1
        state[place : place + length] = THROTTLE if slow else 1.0
        place, slow = place + length, not slow
    return state


FAMILIES: dict[str, Callable[[int, np.random.Generator], Floats]] = {
    "plain": plain,
    "bimodal": bimodal,
    "bimodal rounds": bimodal_rounds,
    "drifting": plain,
    "throttled": plain,
    "heavy-tailed": heavy_tailed,
    "autocorrelated": autocorrelated,
}
ENVIRONMENTS: dict[str, Callable[[int, np.random.Generator], Floats]] = {"drifting": drift, "throttled": throttle}

if __name__ == "__main__":
    main()
