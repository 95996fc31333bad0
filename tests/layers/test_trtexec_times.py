"""`--exportTimes` and `--exportProfile`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trtq.errors import ModelError
from trtq.layers.trtexec_times import read_profile, read_times

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
QUERY = {"startComputeMs": 1.5, "endComputeMs": 2, "h2dMs": 0.25, "computeMs": 0.5, "d2hMs": 0.125, "latencyMs": 0.875}


def write(folder: Path, text: str) -> Path:
    path = folder / "times.json"
    path.write_text(text)
    return path


def test_times_in_microseconds(tmp_path: Path) -> None:
    found = read_times(write(tmp_path, json.dumps([QUERY, {**QUERY, "latencyMs": 0.1}])))
    assert (found.latency_us, found.compute_us, found.h2d_us) == ((875.0, 100.0), (500.0, 500.0), (250.0, 250.0))
    assert (found.d2h_us, found.start_compute_us, found.end_compute_us) == ((125.0,) * 2, (1500.0,) * 2, (2000.0,) * 2)


@pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_real_times_give_the_summary_s_figure() -> None:
    found = read_times(ENGINES / "trt8-resnet18-a100" / "qat.timing.json")
    assert len(found.latency_us) == 3614
    assert sorted(found.compute_us)[len(found.compute_us) // 2] == pytest.approx(882.568, rel=0.002)


def test_a_profile_with_raw_names_and_odd_numbers(tmp_path: Path) -> None:
    text = """[
  { "count" : 3 }
, { "name" : "say "conv" \x1e c:\\data", "timeMs" : 1.5, "averageMs" : 0.5, "medianMs" : 0.25, "percentage" : -nan }
, { "name" : "zero", "timeMs" : 0, "averageMs" : nan, "medianMs" : inf, "percentage" : 0 }
]"""
    found = read_profile(write(tmp_path, text))
    assert found.runs == 3
    assert found.rows[0].name == 'say "conv" \x1e c:\\data'
    assert found.rows[0].time_us == 250.0
    assert math.isnan(found.rows[1].mean_us)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[3]", '[{"name": "a"}]', '[{"name": "a", "averageMs": "x"}]', '[{"name": "a", "averageMs": 1'],
)
def test_no_profile(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"times\.json"):
        read_profile(write(tmp_path, text))


@pytest.mark.parametrize("change", [{"latencyMs": None}, {"h2dMs": "1"}, {"computeMs": True}])
def test_no_times(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(change))):
        read_times(write(tmp_path, json.dumps([QUERY, {**QUERY, **change}])))
