"""What TensorRT's inspector writes in its versions and states: one small engine, written out for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtq import layers
from trtq.errors import ModelError
from trtq.layers.inspector import NO_FORMATS_NOTE, STREAMS_NOTE


def tensor(name: str, layout: str, dims: tuple[int, ...] = (1, 8), **more: Any) -> dict[str, Any]:
    return {"Name": name, "Dimensions": list(dims), "Format/Datatype": layout, **more}


def layer(name: str, kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more}


def read(folder: Path, rows: list[Any], **more: Any) -> layers.LayerGraph:
    path = folder / "engine.json"
    path.write_text(json.dumps({"Layers": rows, "Bindings": [], **more}))
    return layers.read(path, optimization_profile=None)


FLOAT, INT8 = "Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format."


@pytest.mark.parametrize(
    ("rows", "conversions"),
    [
        ([layer("q", "Reformat", [tensor("x", FLOAT)], [tensor("y", INT8)], Origin="QDQ")], 1),
        ([layer("r", "Reformat", [tensor("x", FLOAT)], [tensor("y", INT8)], Origin="REFORMAT")], 0),
        # 8.2 writes no Origin: a Q/DQ has its own name there, a change of layout has not.
        ([layer("QuantizeLinear_2", "Reformat", [tensor("x", FLOAT)], [tensor("y", INT8)])], 1),
        (
            [
                layer(
                    "Reformatting CopyNode for Input Tensor 0 to c",
                    "Reformat",
                    [tensor("x", FLOAT)],
                    [tensor("y", INT8)],
                )
            ],
            0,
        ),
        ([layer("QuantizeLinear_2", "Scale", [tensor("x", FLOAT)], [tensor("y", INT8)])], 1),
        ([layer("DequantizeLinear_3", "Scale", [tensor("x", INT8)], [tensor("y", "Half")])], 1),
        ([layer("batch_norm", "Scale", [tensor("x", FLOAT)], [tensor("y", FLOAT)])], 0),
        ([layer("add", "Scale", [tensor("x", INT8), tensor("z", INT8)], [tensor("y", FLOAT)])], 0),
    ],
)
def test_leftover_conversions(tmp_path: Path, rows: list[Any], conversions: int) -> None:
    assert read(tmp_path, rows).signals.conversions == conversions


def test_a_layer_that_launches_no_kernel_moves_nothing(tmp_path: Path) -> None:
    rows = [
        layer("a", "CaskPooling", [tensor("x", FLOAT)], [tensor("y", FLOAT)]),
        layer("b", "NoOp", [tensor("y", FLOAT)], [tensor("z", FLOAT)]),
    ]
    signals = read(tmp_path, rows).signals
    assert (signals.layers, signals.traffic_bytes, signals.float_writes) == (2, 64, 1)


@pytest.mark.parametrize("dims", [(), (7,), (1, 2, 3, 4, 5)])
def test_any_number_of_dimensions(tmp_path: Path, dims: tuple[int, ...]) -> None:
    graph = read(tmp_path, [layer("a", "kgen", [tensor("x", "BFloat16", dims)], [tensor("y", "Bool", dims)])])
    count = 1
    for dim in dims:
        count *= dim
    assert graph.signals.traffic_bytes == 3 * count


def test_dynamic_shapes_without_an_execution_context(tmp_path: Path) -> None:
    unknown = tensor("x", "N/A due to dynamic shapes", (-1, 8))
    graph = read(tmp_path, [layer("a", "CaskConvolution", [unknown], [tensor("y", INT8)])])
    assert graph.layers[0].inputs[0].dims == (-1, 8)
    assert graph.layers[0].inputs[0].dtype == "unknown"
    assert graph.signals.traffic_bytes is None
    assert graph.signals.int8_share is None
    assert NO_FORMATS_NOTE in graph.notes


def test_the_lowest_or_the_named_optimization_profile(tmp_path: Path) -> None:
    marks = ("", " [profile 2]", " [profile 12]")
    rows = [layer(f"conv{mark}_myl1_2", "kgen", [], [tensor(f"y{mark}", INT8)]) for mark in marks]
    graph = read(tmp_path, rows)
    assert [one.name for one in graph.layers] == ["conv_myl1_2"]
    assert any("3 optimization profiles" in note for note in graph.notes)
    twelfth = layers.read(tmp_path / "engine.json", optimization_profile=12)
    assert [one.name for one in twelfth.layers] == ["conv [profile 12]_myl1_2"]
    with pytest.raises(ModelError, match=r"no optimization profile 1; it has 0, 2, 12"):
        layers.read(tmp_path / "engine.json", optimization_profile=1)


def test_profile_marks_are_no_part_of_onnx_names(tmp_path: Path) -> None:
    graph = read(tmp_path, ["w + conv_1 + relu_2 [profile 1]", "pool_3 [profile 1]"])
    assert [one.onnx_nodes for one in graph.layers] == [("w", "conv_1", "relu_2"), ("pool_3",)]


def test_both_separators_in_one_file(tmp_path: Path) -> None:
    names = "[ONNX Layer: a]\x1e[ONNX Layer: b]", "[ONNX Layer: c]\x1f[ONNX Layer: d]"
    graph = read(tmp_path, [layer(f"l{n}", "kgen", [], [tensor("y", INT8)], Metadata=m) for n, m in enumerate(names)])
    assert [one.onnx_nodes for one in graph.layers] == [("a", "b"), ("c", "d")]


def test_what_is_not_known_is_kept_and_said_once(tmp_path: Path) -> None:
    novelty = layer("n", "QuantumConvolution", [tensor("x", "E8M0")], [tensor("y", "E8M0")], Colour="blue")
    graph = read(tmp_path, [novelty, {**novelty, "Name": "m"}])
    assert [one.kind for one in graph.layers] == ["QuantumConvolution"] * 2
    assert sum("QuantumConvolution" in note for note in graph.notes) == 1
    assert sum("'E8M0' (4)" in note for note in graph.notes) == 1


def test_several_streams_are_said(tmp_path: Path) -> None:
    rows = [layer(f"l{stream}", "kgen", [], [tensor("y", INT8)], StreamId=stream) for stream in (0, 1)]
    assert STREAMS_NOTE in read(tmp_path, rows).notes
    assert STREAMS_NOTE not in read(tmp_path, rows[:1]).notes


def test_python_names_only_export(tmp_path: Path) -> None:
    graph = read(tmp_path, ["conv"], **{"ProfilingVerbosity": "LAYER_NAMES_ONLY", "Engine Metadata": {}})
    assert graph.signals.layers == 1
    assert graph.signals.conversions is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Dimensions": [1, 3.7]}, "dimensions"),
        ({"Dimensions": [True]}, "dimensions"),
        ({"Dimensions": None}, "dimensions"),
        ({"Name": 3}, "Name is 3"),
    ],
)
def test_a_malformed_tensor_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = [layer("a", "kgen", [], [tensor("y", INT8)]), layer("b", "kgen", [{**tensor("x", FLOAT), **change}], [])]
    with pytest.raises(ModelError, match=f"layer 1.*{words}"):
        read(tmp_path, rows)
