"""The predictor's record: what it claims of published engines, and that docs/predict.md says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "predictor.json").read_text())
PAGE = (ROOT / "docs" / "predict.md").read_text()
CONVERSIONS = {
    "resnet18 qat": 10,
    "resnet18 qat-residual": 3,
    "resnet18 qat-residual-qgap": 1,
    "mobilenet_v2 qat": 17,
    "mobilenet_v2 qat-residual": 2,
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_each_published_placement_is_exact_and_the_page_has_its_figures(name: str) -> None:
    one = RECORD["quantized"][name]
    conversions, tensors, fused = one["conversions"], one["tensors"], one["fused_layers"]
    assert conversions["predicted"] == conversions["real"] == CONVERSIONS[name] and conversions["of_the_same_tensors"]
    assert one["weighted_layers"]["same_types"] == one["weighted_layers"]["layers"] > 20
    assert len(tensors["misses"]) == tensors["compared"] - tensors["match"]
    row = f"| {name} | {conversions['predicted']} ({conversions['real']}) | {tensors['match']} of {tensors['compared']}"
    assert f"{row} | {fused['same']} of {fused['real']} |" in PAGE
    for miss in (*tensors["misses"], *fused["misses"]):
        assert str(miss.get("tensor") if isinstance(miss, dict) else miss[0]) in PAGE


def test_the_page_names_no_engine_that_the_record_lacks() -> None:
    named = re.findall(r"^\| (\w+ qat[\w-]*) \| \d+ \(", PAGE, re.MULTILINE)
    assert set(named) == set(RECORD["quantized"]) == set(CONVERSIONS)


def test_the_page_has_the_other_figures_of_the_record() -> None:
    same, real = (sum(one["fused_layers"][key] for one in RECORD["float"].values()) for key in ("same", "real"))
    yolo, growth = RECORD["yolov7_tiny"], RECORD["growth"]["times_as_long_for_ten_times_the_nodes"]
    text = " ".join(PAGE.split())
    assert f"in {same} of {real} layers" in text
    assert f"keeps {yolo['naive']} conversions as placed and {yolo['unified']} after `trtq unify`" in text
    assert f"one single scale in the whole file ({yolo['one_scale_in_the_file']})" in text
    assert yolo["unified"] == yolo["one_scale_in_the_file"] < yolo["naive"]
    assert f"take {growth} times as long" in text and growth < 20  # a square would be 100
