"""Strip: no Q/DQ is left, weights stand for exactly their integers, and what has no float form is refused."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.errors import ModelError
from trtq.qdq import reading
from trtq.qdq.clean import quantize
from trtq.qdq.strip import strip

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] t_dq)
<float x_scale = {0.1}, float other_scale = {0.25}, float[2] w_scale = {0.005, 0.02}, int8 zero = {0},
 int8[2] zeros = {0, 0}, int8[2,2,1,1] w_q = {1, 2, -128, -4}, float[2] bias = {0.05, 0.5}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    x_q2 = QuantizeLinear (x, other_scale, zero)
    x_dq2 = DequantizeLinear (x_q2, other_scale, zero)
    w = DequantizeLinear <axis = 0> (w_q, w_scale, zeros)
    t = Conv (x_dq, w, bias)
    t_q = QuantizeLinear (t, x_scale, zero)
    t_dq = DequantizeLinear (t_q, x_scale, zero)
    u = Conv (x_dq2, w)
    y = Add (t_dq, u)
}
"""


def load(text: str = NETWORK) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def test_pairs_go_and_their_scales_are_told() -> None:
    model = load()
    stripped = strip(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Conv", "Add"]
    assert stripped.activations == {"x": pytest.approx(0.25), "t": pytest.approx(0.1)}
    assert [node.op_type for node in stripped.layers] == ["Conv", "Conv"]
    assert [value.name for value in model.graph.outputs] == ["y", "t_dq"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_weights_have_the_values_of_their_integers() -> None:
    model = load()
    stripped = strip(model)
    [(name, scales)] = stripped.weights.items()
    expected = np.array([1, 2, -128, -4], np.float32).reshape(2, 2, 1, 1) * np.array([0.005, 0.02], np.float32).reshape(
        2, 1, 1, 1
    )
    np.testing.assert_array_equal(reading.constant(model.graph.initializers[name]), expected)
    assert scales.axis == 0
    np.testing.assert_array_equal(scales.values, np.array([0.005, 0.02], np.float32))


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_what_was_stripped_quantizes_to_the_same_integers(scale: float) -> None:
    integers = np.arange(-128, 128, dtype=np.int8).reshape(2, 128)
    scales = np.array([scale, 1.0], np.float32)
    floats = integers.astype(np.float32) * scales.reshape(2, 1)
    np.testing.assert_array_equal(quantize(floats, scales, 0), integers)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float x_scale = {0.1}", "float x_scale = {0}", "not a positive constant"),
        ("int8 zero = {0}", "int8 zero = {3}", "not quantized to symmetric int8"),
        ("float[2] w_scale = {0.005, 0.02}", "float[2] w_scale = {0.005, nan}", "not a positive constant"),
        ("<axis = 0> (w_q", "<axis = 2> (w_q", "2 scales fit no axis"),
        (
            "x_q = QuantizeLinear (x, x_scale, zero)",
            "x_q = QuantizeLinear <axis = 1> (x, w_scale, zeros)",
            "activations take one for all",
        ),
    ],
)
def test_what_has_no_float_form_is_refused_with_the_tensor(old: str, new: str, message: str) -> None:
    assert old in NETWORK
    with pytest.raises(ModelError, match=message):
        strip(load(NETWORK.replace(old, new)))
