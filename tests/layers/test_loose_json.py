"""JSON with names that trtexec left unescaped, and C++'s numbers."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.layers import loose_json

# A name that itself goes on like an object cannot be told from the end of a name.
RAW_NAMES = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])).filter(
    lambda name: not any(mark in name.replace(" ", "") for mark in ('"}', '":', '"]', '",'))
)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one),
)


@given(st.lists(RAW_NAMES, min_size=1, max_size=4))
def test_raw_names_come_back(names: list[str]) -> None:
    rows = ", ".join('{ "name" : "' + name + '", "timeMs" : 1 }' for name in names)
    assert [row["name"] for row in loose_json.parse(f"[{rows}]")] == names


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_json_stays_as_it_is(value: object) -> None:
    assert loose_json.parse(json.dumps(value)) == value


def test_numbers_of_cpp() -> None:
    found = loose_json.parse('[nan, -nan, inf, -inf, -nan(ind), {"x": inf}, "inf nan"]')
    assert [math.isnan(one) for one in found[:2]] == [True, True]
    assert found[2:4] == [math.inf, -math.inf]
    assert math.isnan(found[4])
    assert found[5:] == [{"x": math.inf}, "inf nan"]


def test_a_comma_within_a_name() -> None:
    (row,) = loose_json.parse('[{"name": "x", "y", "timeMs": 1}]')
    assert row == {"name": 'x", "y', "timeMs": 1}


def test_backslashes_that_escape_nothing() -> None:
    assert loose_json.parse('["c:\\data\\q", "a\\n\\u0041"]') == ["c:\\data\\q", "a\nA"]


@pytest.mark.parametrize("text", ["[", '{"a": ', '["', '{"a": "b', "[1 2]", "{]"])
def test_what_is_cut_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        loose_json.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"Layers": [{"Name": "a", "LayerType": "b", "HasSp {"Type": "Float"}, "Count": 1}]}',
        '{"Layers": [{"Name": "a", "LayerType": "b", "TacticName": "gemm_in": "Float", "Count": 384}]}',
        '[{"name": "a", #timeMs": 1, "averageMs": 1}, {"name": "b", "timeMs": 1, "averageMs": 1}]',
        '[{"name": "a, "timeMs: 1, "averageMs": 1}]',
    ],
)
def test_damage_that_is_no_name_stays_an_error(text: str) -> None:
    """A text that closes late swallows what follows: no mending may lose rows that way."""
    with pytest.raises(ValueError):
        loose_json.parse(text)
