from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.engine_names import Network, read_engine
from benchmarks.engine_scores import scores
from tests.conftest import calls_of, present
from tests.predict.qdq_networks import Builder, mobilenet_v2, resnet18
from trtq import qdq
from trtq.layers.graph import LayerGraph
from trtq.predict import predict, predict_types

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
RESNET, MOBILENET = SHARED / "engines" / "trt8-resnet18-a100", SHARED / "engines" / "trt8-mobilenetv2-titanrtx"
CONVERSIONS = ("quantize", "dequantize", "requantize")
PUBLISHED: dict[str, tuple[Callable[[], ir.Model], Path, int]] = {
    "resnet18 qat": (resnet18, RESNET / "qat.graph.json", 10),
    "resnet18 qat-residual": (lambda: resnet18(residual=True), RESNET / "qat-residual.graph.json", 3),
    "resnet18 qat-residual-qgap": (
        lambda: resnet18(residual=True, pool=True),
        RESNET / "qat-residual-qgap.graph.json",
        1,
    ),
    "mobilenet_v2 qat": (mobilenet_v2, MOBILENET / "qat.graph.json", 17),
    "mobilenet_v2 qat-residual": (lambda: mobilenet_v2(residual=True), MOBILENET / "qat-residual.graph.json", 2),
}


def conversions(graph: LayerGraph) -> Counter[str]:
    return Counter(layer.kind for layer in graph.layers if layer.kind in CONVERSIONS)


def types_of(graph: LayerGraph, kinds: tuple[str, ...]) -> dict[str, tuple[list[str], str]]:
    """Map each layer of these kinds, by its first computing ONNX node, to the dtypes that it reads and writes."""
    found: dict[str, tuple[list[str], str]] = {}
    for layer in graph.layers:
        if layer.kind in kinds:
            node = next(name for name in layer.onnx_nodes if not name.endswith(("weight_q", "weight_dq")))
            found[node] = ([tensor.dtype for tensor in layer.inputs], layer.outputs[0].dtype)
    return found


@pytest.mark.parametrize("case", PUBLISHED)
def test_conversions_of_published_placements(case: str) -> None:
    network, _, expected = PUBLISHED[case]
    graph = predict(network(), "explicit")
    assert graph.origin == "predicted"
    assert graph.signals.conversions == sum(conversions(graph).values()) == expected
    assert {tensor.dtype for layer in graph.layers for tensor in (*layer.inputs, *layer.outputs)} == {"int8", "float"}


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_weighted_layer_has_the_types_of_the_published_engine(case: str) -> None:
    network, file, expected = PUBLISHED[case]
    if not file.exists():
        pytest.skip(f"{file.name} of the shared engine files is not here")
    layers = json.loads(file.read_text())["Layers"]
    assert sum(layer.get("Origin") == "QDQ" for layer in layers) == expected
    measured = {}
    for layer in layers:
        weight, found, _ = layer["Name"].partition(".weight + ")
        if found and layer["LayerType"] not in ("NoOp", "Reformat"):
            measured[weight] = ([_dtype(tensor) for tensor in layer["Inputs"]], _dtype(layer["Outputs"][0]))
    assert types_of(predict(network(), "explicit"), ("Conv", "Gemm")) == measured


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_tensor_conversion_and_fused_layer_is_the_published_engines(case: str, tmp_path: Path) -> None:
    network, file, expected = PUBLISHED[case]
    if not file.exists():
        pytest.skip(f"{file.name} of the shared engine files is not here")
    model = network()
    qdq.save(model, tmp_path / "model.onnx")
    names = Network(tmp_path / "model.onnx")
    found = scores(read_engine(file, names), predict_types(model), names)
    assert found["conversions"] == {"predicted": expected, "real": expected, "of_the_same_tensors": True}
    assert found["tensors"]["misses"] == [] and found["tensors"]["compared"] >= 23
    assert found["fused_layers"]["misses"] == [] and found["fused_layers"]["real"] >= 22


def _dtype(tensor: dict[str, str]) -> str:
    text = tensor["Format/Datatype"]
    return "int8" if "Int8" in text or "INT8" in text else "float"


def elan(scales: tuple[float, float, float, float]) -> ir.Model:
    """Two convolutions read their own tensor and join in a Concat that a max pool and a third convolution read."""
    b = Builder()
    stem = b.relu(b.quantized_conv(b.input(), "stem", 4), "stem.relu")
    one = b.relu(b.quantized_conv(stem, "one", 4), "one.relu")
    two = b.relu(b.quantized_conv(one, "two", 4, scales[0]), "two.relu")
    side = b.relu(b.quantized_conv(two, "side", 4, scales[1]), "side.relu")
    joined = b.concat([one, two, side], "joined")
    left = b.quantized_conv(joined, "left", 4, scales[2])
    return b.model(left, b.quantized_conv(b.max_pool(joined, "pool"), "right", 4, scales[3]))


def test_unequal_scales_at_a_concat_cost_conversions_that_unify_removes() -> None:
    naive = elan((0.1, 0.2, 0.3, 0.3))
    before = predict(naive, "explicit")
    # The input; `one` and `two` twice each, for their own reader and for the clone of the Concat's Q.
    assert conversions(before) == {"quantize": 1 + 2 * 2}
    assert {name for name, (_, dtype) in types_of(before, ("Conv",)).items() if dtype == "float"} == {
        "one", "two", "left", "right"
    }  # fmt: skip
    qdq.unify(naive)
    after = predict(naive, "explicit")
    assert conversions(after) == {"quantize": 1}
    assert after.signals.float_writes == 2  # the two outputs of the network


def test_two_scales_behind_a_concat_keep_it_float() -> None:
    graph = predict(elan((0.1, 0.2, 0.3, 0.4)), "explicit")
    # The input, `one` and `two` for their own reader, and both Qs on the joined tensor.
    assert conversions(graph) == {"quantize": 1 + 2 + 2}
    assert types_of(graph, ("Concat",)) == {"joined": (["float"] * 3, "float")}


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.sampled_from([0.1, 0.2, 0.4])] * 4))
def test_unify_never_adds_a_conversion(scales: tuple[float, float, float, float]) -> None:
    model = elan(scales)
    before = present(predict(model, "explicit").signals.conversions)
    qdq.unify(model)
    assert predict(model, "explicit").signals.conversions == 1 <= before


def test_one_float_reader_keeps_the_tensor_float() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    two = b.quantized_conv(x, "two", 4)
    graph = predict(b.model(two, b.same("Exp", x, "exp")), "explicit")
    assert types_of(graph, ("Conv",)) == {"one": (["int8"], "float"), "two": (["int8"], "float")}
    assert conversions(graph) == {"quantize": 2}


def test_a_tensor_that_is_also_an_output_stays_float() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    graph = predict(b.model(x, b.quantized_conv(x, "two", 4)), "explicit")
    assert types_of(graph, ("Conv",))["one"] == (["int8"], "float")


def test_dequantize_then_quantize_by_another_scale_is_one_requantize() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    x = b.qdq(b.qdq(x, "first", 0.1), "second", 0.2)
    graph = predict(b.model(b.conv(x, "two", 4)), "explicit")
    assert conversions(graph) == {"quantize": 1, "requantize": 1}
    [layer] = [layer for layer in graph.layers if layer.kind == "requantize"]
    assert layer.onnx_nodes == ("first.dq", "second.q")
    assert (layer.inputs[0].dtype, layer.outputs[0].dtype) == ("int8", "int8")


def test_dequantize_moves_forward_through_a_reshape_and_quantize_back_through_a_resize() -> None:
    b = Builder()
    x = b.qdq(b.relu(b.quantized_conv(b.input(), "one", 4), "relu"), "early")
    x = b.same("Transpose", x, "transpose", perm=[0, 1, 3, 2])
    sizes = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = b.node("Resize", [x, "", sizes], "resize", 4, mode="nearest")
    graph = predict(b.model(b.quantized_conv(x, "two", 4)), "explicit")
    assert conversions(graph) == {"quantize": 1}
    assert types_of(graph, ("Transpose", "Resize")) == {"transpose": (["int8"], "int8"), "resize": (["int8"], "int8")}


def test_linear_resize_is_not_crossed() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    sizes = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = b.node("Resize", [x, "", sizes], "resize", 4, mode="linear")
    graph = predict(b.model(b.quantized_conv(x, "two", 4)), "explicit")
    assert conversions(graph) == {"quantize": 2}


def test_split_is_crossed_only_when_every_part_is_quantized_alike() -> None:
    def halves(scale: float) -> LayerGraph:
        b = Builder()
        x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
        b.nodes.append(ir.to_proto(ir.Node("", "Split", [], num_outputs=2, name="split")))
        b.nodes[-1].input.extend([x, b.constant("sizes", np.array([2, 2], np.int64))])
        b.nodes[-1].output[:] = ["left", "right"]
        b.nodes[-1].attribute.append(ir.to_proto(ir.AttrInt64("axis", 1)))
        b.channels.update(left=2, right=2)
        return predict(
            b.model(b.quantized_conv("left", "two", 4), b.quantized_conv("right", "three", 4, scale)), "explicit"
        )

    assert conversions(halves(0.1)) == {"quantize": 1}
    assert conversions(halves(0.2)) == {"quantize": 3}


@pytest.mark.parametrize("gate", [("Sigmoid",), ("Softplus", "Tanh"), ("HardSigmoid",)])
def test_batch_norm_and_gated_activations_fuse(gate: tuple[str, ...]) -> None:
    b = Builder()
    x = b.quantized_conv(b.input(), "one", 4)
    places = [b.constant(f"bn.{name}", np.ones(4, np.float32)) for name in ("scale", "bias", "mean", "variance")]
    step = x = b.node("BatchNormalization", [x, *places], "bn", 4)
    for index, kind in enumerate(gate):
        step = b.same(kind, step, f"gate{index}")
    x = b.node("Mul", [x, step], "mul", 4)
    graph = predict(b.model(b.quantized_conv(x, "two", 4)), "explicit")
    assert conversions(graph) == {"quantize": 1}
    fused = graph.layers[1].onnx_nodes
    assert fused == ("one.weight_q", "one.weight_dq", "one", "bn", *(f"gate{i}" for i in range(len(gate))), "mul")


def test_batch_norm_apart_from_a_convolution_is_reported() -> None:
    b = Builder()
    x = b.max_pool(b.quantized_conv(b.input(), "one", 4), "pool")
    places = [b.constant(f"bn.{name}", np.ones(4, np.float32)) for name in ("scale", "bias", "mean", "variance")]
    graph = predict(b.model(b.node("BatchNormalization", [x, *places], "bn", 4)), "explicit")
    assert any("1 BatchNormalization" in note for note in graph.notes)
    assert any("8.4-8.6" in note and "unverified" in note for note in graph.notes)


def test_int8_weights_and_float_weights_give_one_prediction_and_the_model_is_left_alone() -> None:
    model = resnet18(residual=True)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    as_float = predict(model, "explicit")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    qdq.store_int8_weights(model)
    as_int8 = predict(model, "explicit")
    assert as_float.signals == as_int8.signals
    assert [layer.outputs for layer in as_float.layers] == [layer.outputs for layer in as_int8.layers]


def test_a_float_network_has_no_conversion_and_no_int8() -> None:
    b = Builder()
    weight = b.constant("weight", np.ones((4, 3, 3, 3), np.float32))
    x = b.node("Conv", [b.input(), weight], "conv", 4)
    graph = predict(b.model(b.relu(x, "relu")), "explicit")
    assert (graph.signals.conversions, graph.signals.int8_share) == (0, 0.0)
    assert [layer.onnx_nodes for layer in graph.layers] == [("conv", "relu")]
    assert graph.layers[0].outputs[0].dims == (1, 4, 30, 30)


def test_work_grows_in_proportion_to_the_graph() -> None:
    def calls(pools: int) -> int:
        b = Builder()
        x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
        pooled = x
        for index in range(pools):
            pooled = b.max_pool(pooled, f"pool{index}", stride=1)
        parts = [b.same("Transpose", x, f"part{index}", perm=[0, 1, 3, 2]) for index in range(pools)]
        model = b.model(b.quantized_conv(b.concat([pooled, *parts], "joined"), "two", 4))
        assert conversions(predict(model, "explicit")) == {"quantize": 1}
        return calls_of(lambda: predict(model, "explicit"))

    assert calls(1000) < 12 * calls(100)


@pytest.mark.parametrize(
    "file", sorted((SHARED / "onnx").rglob("*.onnx")) or [None], ids=lambda file: file and file.stem
)
def test_files_of_real_tools(file: Path | None) -> None:
    if file is None:
        pytest.skip("the shared ONNX files are not here")
    model = qdq.load(file)
    graph = predict(model, "explicit")
    quantizers = sum(node.op_type == "QuantizeLinear" for node in model.graph)
    computing = {node.name for node in model.graph if node.op_type in ("Conv", "Gemm")}
    assert computing <= {name for layer in graph.layers for name in layer.onnx_nodes}
    assert (present(graph.signals.conversions) > 0) == (quantizers > 0) or "dq-only" in file.stem
