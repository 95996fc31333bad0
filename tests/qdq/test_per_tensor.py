"""One weight scale a convolution: the same integers, the same numbers, and FP16's range is never left."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.qdq.qdq_graphs import Network, random_feeds, run
from trtq.qdq.fp16 import to_fp16
from trtq.qdq.per_tensor import WeightScales, to_per_tensor

HALF_MAX = 65504


def conv(
    scales: np.ndarray,
    codes: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    stored: str = "int8",
    act: float = 0.02,
    group: int | None = None,
    pads: list[int] | None = None,
) -> Network:
    """A quantized convolution with the weights codes * scales; stored as int8 or as floats behind a quantizer."""
    net = Network()
    x = net.pair(net.input("x", codes.shape[1] * (group or 1)), act)
    net.constant("w_scale", scales.astype(np.float32))
    net.constant("w_zero", np.zeros(len(scales), np.int8))
    if stored == "int8":
        quantized = net.constant("w_q", codes)
    else:
        net.constant("w", codes * scales.astype(np.float32).reshape(-1, 1, 1, 1))
        quantized = net.op("QuantizeLinear", "w", "w_scale", "w_zero", out="w_q", axis=0)
    weights = net.op("DequantizeLinear", quantized, "w_scale", "w_zero", out="w_dq", axis=0)
    biases = [] if bias is None else [net.constant("b", bias.astype(np.float32))]
    net.op("Conv", x, weights, *biases, out="y", group=group, pads=pads)
    return net


def changed(proto: onnx.ModelProto, **ranges: float) -> tuple[onnx.ModelProto, WeightScales]:
    model = ir.from_proto(proto)
    scales = to_per_tensor(model, ranges)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    return result, scales


def codes_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape, dtype=np.int8)


@settings(max_examples=60, deadline=None)
@given(
    exponents=st.lists(st.floats(-4, 0), min_size=1, max_size=6),
    inputs=st.integers(1, 5),
    kernel=st.sampled_from((1, 3)),
    biased=st.booleans(),
    stored=st.sampled_from(("int8", "float")),
    dead=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_numbers_are_the_same(
    exponents: list[float], inputs: int, kernel: int, biased: bool, stored: str, dead: bool, seed: int
) -> None:
    """Equal to float32's own rounding, whatever the scales: 4 decades between channels here."""
    scales = np.power(10.0, exponents) * 0.02
    codes = codes_of(len(scales), inputs, kernel, kernel, seed=seed)
    if dead:
        codes[0] = 0
    bias = np.random.default_rng(seed).normal(0, 1, len(scales)) if biased else None
    proto = conv(scales, codes, bias=bias, stored=stored, pads=[kernel // 2] * 4).proto("y")
    result, _ = changed(proto, y=1.0)
    feeds = random_feeds(proto)
    before, after = run(proto, feeds)[0], run(result, feeds)[0]
    largest = np.abs(before).max(axis=(0, 2, 3), keepdims=True) + 1e-12
    assert np.abs((after - before) / largest).max() < 5e-6
    weights = [numpy_helper.to_array(one) for one in result.graph.initializer if one.name.endswith("_int8")]
    assert all(np.array_equal(one, codes) for one in weights)


def test_shape_of_the_result() -> None:
    proto = conv(np.array([0.01, 0.02, 0.005]), codes_of(3, 4, 1, 1), bias=np.ones(3)).proto("y")
    result, scales = changed(proto)
    assert scales == WeightScales(("y",), ())
    assert [node.op_type for node in result.graph.node][-4:] == ["DequantizeLinear", "Conv", "Mul", "Add"]
    assert len(next(node for node in result.graph.node if node.op_type == "Conv").input) == 2
    constants = {one.name: numpy_helper.to_array(one) for one in result.graph.initializer}
    weight_scale = next(
        node for node in result.graph.node if node.op_type == "DequantizeLinear" and "w_dq" in node.name
    )
    assert float(constants[weight_scale.input[1]]) == np.float32(0.02)
    np.testing.assert_allclose(constants["y_ratios"].ravel(), [0.5, 1, 0.25], rtol=1e-6)
    assert "w_scale" not in constants


def test_equal_scales_need_no_ratios() -> None:
    result, scales = changed(conv(np.full(3, 0.01), codes_of(3, 4, 1, 1), bias=np.ones(3)).proto("y"))
    assert scales.changed == ("y",)
    assert [node.op_type for node in result.graph.node][-1] == "Conv"
    assert len(result.graph.node[-1].input) == 3


def test_depthwise_and_weights_read_twice() -> None:
    net = conv(np.array([0.01, 0.02]), codes_of(2, 1, 3, 3), group=2, pads=[1] * 4)
    net.op("Conv", "x", "w_dq", out="z", group=2, pads=[1] * 4)
    proto = net.proto("y", "z")
    result, scales = changed(proto)
    assert scales.changed == ("y",)
    assert scales.left[0].tensor == "z"
    assert "not quantized" in scales.left[0].reason
    feeds = random_feeds(proto)
    for before, after in zip(run(proto, feeds), run(result, feeds), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


WIDE = np.array([1.0, 1e-3])


@pytest.mark.parametrize(
    ("scales", "ranges", "reason"),
    [
        (WIDE, {}, "its output could reach"),
        (WIDE, {"y": 100.0}, "its output would reach 1e+05 in FP16"),
        (WIDE, {"y": 30.0}, None),
        (np.array([1.0, 1e-5]), {"y": 0.1}, "its channels' scales differ by 1e+05 times"),
        (WIDE * 1e-3, {}, None),
    ],
)
def test_headroom(scales: np.ndarray, ranges: dict[str, float], reason: str | None) -> None:
    """Where neither the integers nor a range bound what the convolution writes, each channel keeps its scale."""
    proto = conv(scales, np.full((2, 16, 3, 3), 127, np.int8), act=0.05, pads=[1] * 4).proto("y")
    result, found = changed(proto, **ranges)
    if reason is None:
        assert found.changed == ("y",)
    else:
        assert reason in found.left[0].reason
        assert [node.op_type for node in result.graph.node] == [node.op_type for node in proto.graph.node]


@settings(max_examples=30, deadline=None)
@given(exponents=st.lists(st.floats(-3, 0), min_size=2, max_size=5), size=st.floats(0.001, 1), seed=st.integers(0, 99))
def test_what_is_changed_without_ranges_never_overflows(exponents: list[float], size: float, seed: int) -> None:
    """The worst image there is: every input at the end of its range, with the sign of the largest channel's weights."""
    codes = codes_of(len(exponents), 4, 3, 3, seed=seed)
    proto = conv(np.power(10.0, exponents) * size, codes, act=0.5, pads=[1] * 4).proto("y")
    result, scales = changed(proto)
    if not scales.changed:
        return
    inner = next(node.output[0] for node in result.graph.node if node.op_type == "Conv")
    result.graph.output.append(onnx.helper.make_tensor_value_info(inner, onnx.TensorProto.FLOAT, None))
    for channel in codes:
        worst = np.zeros((1, 4, 6, 6), np.float32)
        worst[0, :, 1:4, 1:4] = np.sign(channel) * 1e6
        assert np.abs(run(result, {"x": worst}, [inner])[0]).max() <= HALF_MAX


def test_fp16_of_it_is_near() -> None:
    scales = np.geomspace(0.001, 0.02, 8)
    proto = conv(scales, codes_of(8, 8, 3, 3), bias=np.ones(8), pads=[1] * 4).proto("y")
    model = ir.from_proto(proto)
    casting = to_fp16(model, per_tensor_weights=True)
    assert casting.weights == WeightScales(("y",), ())
    feeds = random_feeds(proto)
    before, after = run(proto, feeds)[0], run(ir.to_proto(model), feeds)[0]
    # Two more roundings than FP16 with a scale a channel: 2 ** -11 each, and that of the summed products.
    assert np.abs(after - before).max() < 4 * 2**-11 * np.abs(before).max()


def test_what_is_kept_keeps_its_scales() -> None:
    model = ir.from_proto(conv(np.array([0.01, 0.02]), codes_of(2, 4, 1, 1)).proto("y"))
    casting = to_fp16(model, per_tensor_weights=True, keep=("n_y",))
    assert casting.weights is not None
    assert casting.weights.changed == ()
    assert casting.weights.left[0].reason == "it was asked for"
