"""Stored runs: in order of time whatever their files are called, and nothing measured for a file that cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trtq.bench import BenchResult, BenchRun, store
from trtq.config import Recipe, load_recipe
from trtq.errors import OutputError


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(Path(shutil.copy(ROOT / "engines" / "mobilenet_v2-digits.toml", tmp_path / "net.toml")))


def run(when: str, time_us: float) -> BenchRun:
    return BenchRun(when, (BenchResult("fp32", "ort", 1, (time_us,) * 20, run=when),))


def test_history_is_in_order_of_time(recipe: Recipe) -> None:
    folder = store.folder_of(recipe)
    store.save(run("20260102T000000Z", 900.0), folder / "a-name-of-its-own.json")
    store.save(run("20260101T000000Z", 500.0), folder / "20260101T000000Z.json")
    (folder / "other.json").write_text("{}")
    steps = store.history(recipe)
    assert [step.when for step in steps] == ["20260101T000000Z", "20260102T000000Z"]
    assert [step.regressed for step in steps] == [False, True] and store.regressions(steps) == steps[1:]


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write here"):
        store.check_new(tmp_path / "file" / "run.json")
    with pytest.raises(OutputError, match="overwrites nothing"):
        store.check_new(tmp_path / "file")
    store.check_new(tmp_path / "new" / "run.json")
    assert not list((tmp_path / "new").iterdir())
