"""A part of the fuzzed corpus of `benchmarks/fuzzed_readers.py`: read as recounted, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzzed_readers

needs_engines = pytest.mark.skipif(
    not fuzzed_readers.ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)


@needs_engines
def test_mutated_files(tmp_path: Path) -> None:
    outcomes = [fuzzed_readers.judge(case, tmp_path / "file") for case in fuzzed_readers.cases(210, seed=7)]
    assert [one for one in outcomes if one not in ("read", "refused")] == []
    assert outcomes.count("read") > 100
    assert outcomes.count("refused") > 20


@pytest.mark.parametrize("case", list(fuzzed_readers.hostile()), ids=lambda case: case.how)
def test_large_and_deep_files(case: fuzzed_readers.Case, tmp_path: Path) -> None:
    assert fuzzed_readers.judge(case, tmp_path / "file") in ("read", "refused")
