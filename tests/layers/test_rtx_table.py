"""The reader of TensorRT-RTX's layer table, on a table that TensorRT-RTX 1.7.1 wrote (`branches.table.txt`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq import layers
from trtq.errors import ModelError
from trtq.layers import rtx

TABLE = Path(__file__).with_name("branches.table.txt").read_text(encoding="utf-8")
ROW = (
    "Name: {name}, LayerType: {kind}, Inputs: [ {{ Name: {tensor}, Dimensions: [1,64], Strides: [], StrideOrder: [], "
    "Datatype: {dtype}, Format: (Linear) Row major linear format }}], Constants: [], Outputs: [ {{ Name: {tensor}, "
    "Dimensions: [{dims}], Strides: [], StrideOrder: [], Datatype: Int8, Format: (NHWC) Channel major format }}, "
    "{{ Name: {tensor}2, Dimensions: [], Strides: [], StrideOrder: [], Datatype: Half, Format: x }}], "
    "TacticName: t, StreamId: 0{event}, Metadata: {metadata}\n"
)
NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1).filter(
    lambda text: "Name:" not in text and "Metadata:" not in text
) | st.sampled_from(["a[0], b", "x}, {y", "Q [1]", "model.0/conv, StreamId", "], [", "conv + relu"])


def row(**values: str) -> str:
    given_values = {
        "name": "n",
        "kind": "kgen",
        "tensor": "t",
        "dtype": "Float",
        "dims": "1,64",
        "event": "",
        "metadata": "",
    }
    return ROW.format(**{**given_values, **values})


def table(*rows: str) -> str:
    return "Layers:\n" + "".join(rows) + "\nI/O Tensors:\n Name: x, IOMode: Input\n"


def test_real_table() -> None:
    found = rtx.read_table(TABLE, "table")
    assert Counter(layer.kind for layer in found) == {"kgen": 5, "correlation": 5}
    double = found[4]
    assert double.onnx_nodes[-1] == "/b3/conv/input_quantizer/QuantizeLinear"
    assert {(tensor.dtype, tensor.dims) for tensor in double.outputs} == {
        ("int8", (1, 64, 80, 80)),
        ("float32", (1, 64, 80, 80)),
    }
    assert found[0].inputs[0].name == "images"
    assert found[0].inputs[0].format == "(Linear) Row major linear format"
    # Every row of the table is a layer here: it was built with one stream.
    assert len(found) == TABLE.count("\nName: ")


def test_real_signals() -> None:
    signals = rtx.read_graph(TABLE, "table").signals
    assert (signals.double_writes, signals.requantizes, signals.float_writes) == (1, 0, 7)
    assert signals.conversions is None
    assert signals.int8_share == 1.0
    # Counted by hand from the network: 69 times 64 channels of 80 × 80 in bytes, read or written.
    assert signals.traffic_bytes == 69 * 64 * 80 * 80


def test_both_separators() -> None:
    assert "\x1f" in TABLE
    assert rtx.read_table(TABLE.replace("\x1f", "\x1e"), "table") == rtx.read_table(TABLE, "table")
    assert rtx.read_table(TABLE.replace("\x1f", ""), "terminal") == rtx.read_table(TABLE, "table")


@given(name=NAMES, tensor=NAMES, node=NAMES)
def test_any_name(name: str, tensor: str, node: str) -> None:
    (layer,) = rtx.read_table(
        table(row(name=name, tensor=tensor, metadata=f"[ONNX Layer: {node}]\x1e[ONNX Layer: z]")), "t"
    )
    assert layer.name == name
    assert [one.name for one in (*layer.inputs, *layer.outputs)] == [tensor, tensor, tensor + "2"]
    assert layer.onnx_nodes == (node, "z")


def test_unknown_words_are_kept() -> None:
    (layer,) = rtx.read_table(table(row(kind="novelty", dtype="E8M0")), "t")
    assert layer.kind == "novelty"
    assert layer.inputs[0].dtype == "unknown"
    assert [one.dtype for one in layer.outputs] == ["int8", "float16"]


def test_synchronization_is_dropped() -> None:
    found = rtx.read_table(
        table(row(kind="signal", event=", EventId: 3"), row(), row(kind="wait", event=", EventId: 3")), "t"
    )
    assert [layer.kind for layer in found] == ["kgen"]


def test_dynamic_dimension_has_no_traffic() -> None:
    graph = rtx.read_graph(table(row(dims="-1,64")), "t")
    assert graph.layers[0].outputs[0].dims == (-1, 64)
    assert graph.signals.traffic_bytes is None
    assert graph.signals.float_writes == 1


@pytest.mark.parametrize(
    "text", ["", "Layers:", "hello\n", "Layers:\n\n\nI/O Tensors:\n", table("Name: x, LayerType: kgen\n"), table("x\n")]
)
def test_no_table(text: str) -> None:
    with pytest.raises(ModelError, match=r"^log: "):
        rtx.read_table(text, "log")


def test_every_cut_is_found() -> None:
    whole = TABLE.index("I/O Tensors:\n") + len("I/O Tensors:\n")
    for length in range(0, whole, 61):
        with pytest.raises(ModelError):
            rtx.read_table(TABLE[:length], "log")
    assert rtx.read_table(TABLE[:whole], "log")


def test_read_sniffs_a_raw_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    record = rtx.BuildRecord("TensorRT-RTX 1.7.1.116", ("sm86",), "00ff")
    log.write_text(f"{record.header()}\n[INFO] start\n[VERBOSE] {TABLE}\n[INFO] after\n", encoding="utf-8")
    graph = layers.read(log)
    assert (graph.origin, graph.source, graph.targets) == ("compiled", "TensorRT-RTX 1.7.1.116", ("sm86",))
    assert graph.onnx_sha256 == "00ff"
    assert graph.layers == rtx.read_table(TABLE, "table")
    graph.save(tmp_path / "layers.json")
    assert layers.read(tmp_path / "layers.json") == graph


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{", '{"Layers": 3}', '{"trtq_layers": 2}', '{"trtq_layers": 1}'])
def test_read_refuses_other_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"file\.json"):
        layers.read(path)
    with pytest.raises(ModelError, match=r"cannot be read"):
        layers.read(tmp_path / "absent")
