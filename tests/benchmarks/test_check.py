"""A claim whose figure got worse is found; one within its tolerance is not."""

import json
from pathlib import Path

import pytest

from benchmarks.check import RECORDED, check, summary
from benchmarks.claims import CLAIMS, Claim

LOWER = Claim("cost", "networks/*/time", "lower", 0.25)
HIGHER = Claim("cost", "accuracy", "higher")


def records(folder: Path, **figures: object) -> Path:
    folder.mkdir()
    (folder / "cost.json").write_text(json.dumps(figures))
    return folder


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        ({"networks": {"a": {"time": 1.25}}, "accuracy": 0.5}, []),
        ({"networks": {"a": {"time": 1.26}}, "accuracy": 0.5}, ["networks/a/time"]),
        ({"networks": {"a": {"time": 0.1}}, "accuracy": 0.49}, ["accuracy"]),
        ({"networks": {}, "accuracy": 0.9}, ["networks/a/time"]),
        ({"networks": {"a": {"time": 1}, "b": {"time": 9}}, "accuracy": 0.5}, []),
    ],
)
def test_worse_is_beyond_the_tolerance_or_gone(tmp_path: Path, now: dict[str, object], worse: list[str]) -> None:
    recorded = records(tmp_path / "recorded", networks={"a": {"time": 1.0}}, accuracy=0.5)
    verdicts = check(records(tmp_path / "now", **now), recorded, (LOWER, HIGHER))
    assert [one.figure for one in verdicts if one.worse] == worse


def test_a_figure_that_was_not_recorded_before_does_not_count_as_one_that_holds(tmp_path: Path) -> None:
    recorded = records(tmp_path / "recorded", accuracy=0.5)
    now = records(tmp_path / "now", networks={"a": {"time": 1}}, accuracy=0.5)
    assert summary(check(now, recorded, (LOWER, HIGHER))) == "1 figures hold, 0 got worse, 1 are new"


def test_each_claim_has_a_recorded_figure() -> None:
    for claim in CLAIMS:
        assert check(RECORDED, RECORDED, (claim,)), f"{claim.record}: no figure is named {claim.figure}"
