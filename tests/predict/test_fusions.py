"""What fuses, what Q and DQ cross, and where no rule speaks: one small network a rule."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from tests.predict.qdq_networks import Builder
from trtq.layers.graph import Layer
from trtq.predict import Prediction, predict_types

CONVERSIONS = ("quantize", "dequantize", "requantize")


def found(b: Builder, *outputs: str) -> Prediction:
    return predict_types(b.model(*outputs))


def conversions(prediction: Prediction) -> dict[str, int]:
    return dict(Counter(layer.kind for layer in prediction.graph.layers if layer.kind in CONVERSIONS))


def layer_with(prediction: Prediction, node: str) -> Layer:
    [layer] = [one for one in prediction.graph.layers if node in one.onnx_nodes and one.kind not in CONVERSIONS]
    return layer


def types(prediction: Prediction, node: str) -> tuple[list[str], str]:
    layer = layer_with(prediction, node)
    return [tensor.dtype for tensor in layer.inputs], layer.outputs[0].dtype


def transposed(b: Builder, x: str, name: str, channels: int) -> str:
    weight = b.weight((b.channels[x], channels, 2, 2), name)
    return b.node("ConvTranspose", [b.qdq(x, f"{name}.input"), weight], name, channels, strides=[2, 2])


def silu(b: Builder, x: str, name: str) -> str:
    return b.node("Mul", [x, b.same("Sigmoid", x, f"{name}.sigmoid")], name, b.channels[x])


def norm(b: Builder, x: str, name: str) -> str:
    places = [
        b.constant(f"{name}.{one}", np.ones(b.channels[x], np.float32)) for one in ("scale", "bias", "mean", "var")
    ]
    return b.node("BatchNormalization", [x, *places], name, b.channels[x])


@pytest.mark.parametrize(("activation", "fuses"), [("Relu", True), ("LeakyRelu", False)])
def test_an_int8_convolution_with_relu_does_the_max_pool_that_alone_reads_it(activation: str, fuses: bool) -> None:
    b = Builder()
    x = b.max_pool(b.same(activation, b.quantized_conv(b.input(), "one", 4), "act"), "pool")
    model = b.model(b.quantized_conv(x, "two", 4))
    for mode in ("explicit", "ptq"):
        prediction = predict_types(model, mode)
        assert ("one" in layer_with(prediction, "pool").onnx_nodes) is fuses
        assert conversions(prediction) == {"quantize": 1}
    assert "one" not in layer_with(predict_types(model, "fp16"), "pool").onnx_nodes


def test_a_max_pool_of_a_dequantized_tensor_runs_in_int8_and_the_dequantize_follows_it() -> None:
    b = Builder()
    x = b.qdq(b.quantized_conv(b.input(), "one", 4), "early")
    prediction = found(b, b.same("Exp", b.max_pool(x, "pool"), "exp"), b.quantized_conv(x, "two", 4))
    assert types(prediction, "pool") == (["int8"], "int8")
    [dequantize] = [layer for layer in prediction.graph.layers if layer.kind == "dequantize"]
    assert dequantize.inputs[0] in layer_with(prediction, "pool").outputs
    assert conversions(prediction) == {"quantize": 1, "dequantize": 1}


def test_a_quantize_crosses_a_pad_but_not_the_inputs_own() -> None:
    b = Builder()
    pads = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    x = b.node("Pad", [b.input(), pads], "outer", 3)
    x = b.relu(b.quantized_conv(x, "one", 4), "relu")
    x = b.max_pool(b.node("Pad", [x, pads], "inner", 4), "pool")
    prediction = found(b, b.quantized_conv(x, "two", 4))
    assert types(prediction, "outer") == (["float"], "float")
    assert types(prediction, "inner") == (["int8"], "int8")
    assert conversions(prediction) == {"quantize": 1}


def test_a_concats_quantize_does_not_fuse_into_a_transposed_convolution_and_its_own_does() -> None:
    def joined(own: bool) -> Prediction:
        b = Builder()
        up = transposed(b, b.relu(b.quantized_conv(b.input(), "one", 4), "relu"), "up", 4)
        other = b.quantized_conv(up, "other", 4) if own else transposed(b, "relu:0", "other", 4)
        return found(b, b.quantized_conv(b.concat([up, other], "joined"), "last", 4))

    assert types(joined(own=False), "up") == (["int8"], "float")
    assert conversions(joined(own=False)) == {"quantize": 3}
    # A convolution that reads the tensor with the same scale has the Q at hand.
    assert types(joined(own=True), "up") == (["int8"], "int8")
    assert conversions(joined(own=True)) == {"quantize": 1}


def test_a_batch_norm_stays_behind_a_quantized_transposed_convolution() -> None:
    b = Builder()
    x = transposed(b, b.input(), "up", 4)
    prediction = found(b, b.quantized_conv(b.relu(norm(b, x, "bn"), "relu"), "two", 4))
    assert layer_with(prediction, "up").onnx_nodes[-1] == "up"
    assert layer_with(prediction, "bn").onnx_nodes == ("bn", "relu")


@pytest.mark.parametrize("group", [1, 4])
def test_a_depthwise_convolution_leaves_its_gated_activation_to_a_kernel(group: int) -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    x = silu(b, b.quantized_conv(x, "two", 4, group=group), "silu")
    prediction = found(b, b.quantized_conv(x, "three", 4))
    assert ("two" in layer_with(prediction, "silu").onnx_nodes) is (group == 1)
    assert layer_with(prediction, "silu").onnx_nodes[-2:] == ("silu.sigmoid", "silu")
    assert conversions(prediction) == {"quantize": 1 if group == 1 else 2}


def test_a_hard_swish_that_is_written_out_fuses() -> None:
    b = Builder()
    x = b.quantized_conv(b.input(), "one", 4)
    three, six, zero = (b.constant(str(one), np.float32(one)) for one in (3, 6, 0))
    gate = b.node("Clip", [b.node("Add", [x, three], "shift", 4), zero, six], "clip", 4)
    x = b.node("Div", [b.node("Mul", [x, gate], "mul", 4), six], "div", 4)
    prediction = found(b, b.quantized_conv(x, "two", 4))
    assert layer_with(prediction, "one").onnx_nodes[-4:] == ("shift", "clip", "mul", "div")
    assert conversions(prediction) == {"quantize": 1}


@pytest.mark.parametrize(("shape", "fuses"), [((1, 4, 1, 1), True), ((), True), ((1, 4, 32, 32), False)])
def test_a_constant_a_channel_folds_into_the_convolution(shape: tuple[int, ...], fuses: bool) -> None:
    b = Builder()
    x = b.node("Mul", [b.quantized_conv(b.input(), "one", 4), b.constant("k", np.ones(shape, np.float32))], "mul", 4)
    prediction = found(b, b.quantized_conv(x, "two", 4))
    assert ("one" in layer_with(prediction, "mul").onnx_nodes) is fuses


@pytest.mark.parametrize(("kept", "dtype", "confidence"), [(1, "int8", "certain"), (0, "unknown", "unknown")])
def test_a_mean_over_the_image_is_an_average_pool_where_dimensions_are_kept(
    kept: int, dtype: str, confidence: str
) -> None:
    b = Builder()
    x = b.qdq(b.relu(b.quantized_conv(b.input(), "one", 4), "relu"), "mean.input")
    x = b.same("ReduceMean", x, "mean", axes=[2, 3], keepdims=kept)
    if not kept:
        x = b.node("Unsqueeze", [x, b.constant("axes", np.array([2, 3], np.int64))], "unsqueeze", 4)
    prediction = found(b, b.quantized_conv(x, "two", 4, kernel=1))
    assert (prediction.tensors["mean:0"], prediction.confidence["mean:0"]) == (dtype, confidence)


@pytest.mark.parametrize(("pairs", "expected"), [(1, {"quantize": 2, "dequantize": 1}), (2, {"quantize": 1})])
def test_a_shortcut_behind_an_activation_is_disputed_with_one_pair_and_int8_with_two(
    pairs: int, expected: dict[str, int]
) -> None:
    b = Builder()
    x = silu(b, b.quantized_conv(b.input(), "one", 4), "silu1")
    y = silu(b, b.quantized_conv(x, "two", 4), "silu2")
    skip, main = b.qdq(x, "skip"), y if pairs == 1 else b.qdq(y, "main")
    prediction = found(b, b.quantized_conv(b.add(skip, main, "sum"), "three", 4))
    assert conversions(prediction) == expected
    assert prediction.tensors["sum:0"] == ("unknown" if pairs == 1 else "int8")
    assert any("1 Add join" in note for note in prediction.graph.notes) is (pairs == 1)


def test_where_no_rule_speaks_the_type_is_unknown_and_elsewhere_float() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    y = b.node("Mul", [b.qdq(x, "left"), b.qdq(x, "right")], "scaled", 4)
    y = b.quantized_conv(y, "two", 4)
    far = b.same("Sin", b.same("Exp", y, "exp"), "sin")
    prediction = found(b, far)
    assert prediction.tensors["scaled:0"] == "unknown"  # a product of dequantized tensors
    assert (prediction.tensors["sin:0"], prediction.confidence["sin:0"]) == ("float", "likely")
    assert prediction.confidence["two:0"] == "unknown"  # an int8 kernel beside Exp


def test_a_batch_norm_alone_is_float_and_unknown_between_converters() -> None:
    for pair, word in ((False, "certain"), (True, "unknown")):
        b = Builder()
        x = b.max_pool(b.relu(b.quantized_conv(b.input(), "one", 4), "relu"), "pool")
        x = b.relu(norm(b, b.qdq(x, "pair") if pair else x, "bn"), "after")
        prediction = found(b, b.quantized_conv(x, "two", 4))
        assert layer_with(prediction, "bn").onnx_nodes == ("bn", "after")
        assert types(prediction, "bn") == (["float"], "float") and prediction.confidence["after:0"] == word


def test_shapes_that_inference_does_not_find_are_unknown_in_a_dynamic_network_alone() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    network (float[1,4,{size},{size}] x) => (float[a,b,c,d] y)
    <float s = {{0.1}}, int8 z = {{0}}, int8[4,4,1,1] w_q = {{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}, int64 two = {{2}},
     int64[1] zero = {{0}}, int64[1] one = {{1}}>
    {{ x_q = QuantizeLinear (x, s, z) x_dq = DequantizeLinear (x_q, s, z) w = DequantizeLinear (w_q, s, z)
       c = Conv (x_dq, w) shape = Shape (c) part = Gather (shape, one) half = Div (part, two)
       cut = Slice (c, zero, half, one) r = Relu (cut)
       y = Neg (r) }}"""
    static, dynamic = (predict_types(ir.from_onnx_text(text.format(size=size))) for size in ("8", "n"))
    assert static.confidence["cut"] == "likely" and dynamic.confidence["cut"] == "unknown"


def test_every_layer_of_the_json_form_has_a_confidence_and_the_inputs_conversion_is_certain() -> None:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "one", 4), "relu")
    sizes = b.constant("sizes", np.array([1, 1, 2, 2], np.float32))
    up = b.node("Resize", [x, "", sizes], "up", 4, mode="nearest")
    document = found(b, b.quantized_conv(b.concat([up, up], "joined"), "two", 4)).to_json()
    by_kind = {layer["kind"]: layer["confidence"] for layer in document["layers"]}
    assert by_kind["quantize"] == "certain" and by_kind["copy"] == "likely"
    assert {layer["confidence"] for layer in document["layers"]} <= {"certain", "likely", "unknown"}
    assert {"speed", "tactics", "layout reformats"} <= set(document["not_predicted"])
