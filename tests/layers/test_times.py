"""Joining measured times to layers: by name, then in order, and what is left is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from trtq import layers
from trtq.errors import ModelError
from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import signals
from trtq.layers.times import with_times


def graph(*names: str) -> LayerGraph:
    rows = tuple(Layer(name, "kgen", (), ()) for name in names)
    return LayerGraph("measured", "test", rows, signals(rows, "measured"))


def times(*rows: tuple[str, float], of: tuple[str, ...]) -> list[float | None]:
    return [layer.time_us for layer in with_times(graph(*of), rows, "profile").layers]


def test_repeated_names_in_order() -> None:
    assert times(("a", 1), ("b", 2), ("a", 3), of=("a", "a", "b")) == [1, 3, 2]


def test_left_over_between_neighbours_in_order() -> None:
    assert times(("a", 1), ("x'", 2), ("y'", 3), ("b", 4), of=("a", "x", "y", "b")) == [1, 2, 3, 4]


def test_unequal_numbers_are_not_guessed() -> None:
    found = with_times(graph("a", "x", "b"), [("a", 1), ("x'", 2), ("y'", 3), ("b", 4)], "profile")
    assert [layer.time_us for layer in found.layers] == [1, None, 4]
    assert found.notes == (
        "profile: 2 rows of together 5.0 µs belong to none of these layers",
        "profile: 1 layers have no time",
    )
    assert found.signals.time_us == 5


def test_times_that_are_none() -> None:
    assert times(("a", math.nan), ("b", math.inf), ("c", -1.0), ("d", 0.0), of=tuple("abcd")) == [None, None, None, 0]


def test_no_name_in_common() -> None:
    with pytest.raises(ModelError, match="names none"):
        times(("z", 1), of=("a",))


@pytest.mark.parametrize(("row", "noted"), [({"averageMs": 0.001}, True), ({"averageMs": 9, "medianMs": 0.001}, False)])
def test_median_where_there_is_one(tmp_path: Path, row: dict[str, Any], noted: bool) -> None:
    (tmp_path / "engine.json").write_text(json.dumps({"Layers": ["a"]}))
    (tmp_path / "profile.json").write_text(json.dumps([{"count": 1}, {"name": "a", **row}]))
    found = layers.read(tmp_path / "engine.json", tmp_path / "profile.json")
    assert found.layers[0].time_us == 1.0
    assert any("means" in note for note in found.notes) == noted
