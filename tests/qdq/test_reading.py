import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtq.qdq import reading

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2] x, float given_scale) => (float[1,2] a, float[1,2] b, float[1,2] c, float[1,2] d)
<float stored = {0.25}, int8 zero = {0}, float one = {1}>
{
    constant = Constant <value = float {0.5}> ()
    once = Identity (constant)
    twice = Identity (once)
    stored_twice = Identity (stored)
    computed = Mul (stored, one)
    zero_copy = Identity (zero)
    a_q = QuantizeLinear (x, twice, zero_copy)
    a = DequantizeLinear (a_q, constant, zero)
    b_q = QuantizeLinear (x, stored_twice, zero)
    b = DequantizeLinear (b_q, stored)
    c_q = QuantizeLinear (x, computed, zero)
    c = DequantizeLinear (c_q, given_scale, zero)
    kept = Identity (x)
    d_q = QuantizeLinear (kept, stored, zero)
    d_copy = Identity (d_q)
    d = DequantizeLinear (d_copy, stored, zero)
}
"""


@pytest.fixture
def nodes() -> dict[str, ir.Node]:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    return {node.outputs[0].name or "": node for node in model.graph}


@pytest.mark.parametrize(
    ("tensor", "scale"),
    [("a_q", 0.5), ("a", 0.5), ("b_q", 0.25), ("b", 0.25), ("c_q", None), ("c", None)],
)
def test_a_scale_is_found_behind_constant_identity_and_initializer_but_not_computed(
    nodes: dict[str, ir.Node], tensor: str, scale: float | None
) -> None:
    assert reading.scalar_scale(nodes[tensor]) == scale


def test_symmetric_int8_needs_a_zero_point_that_is_present(nodes: dict[str, ir.Node]) -> None:
    assert reading.is_symmetric_int8(nodes["a_q"])
    assert not reading.is_symmetric_int8(nodes["b"])


def test_the_quantized_tensor_is_the_one_before_q_and_identity(nodes: dict[str, ir.Node]) -> None:
    assert [reading.name(reading.quantized_tensor(nodes[one])) for one in ("d_q", "d", "a")] == ["x", "x", "x"]
    assert reading.is_activation(nodes["d"])


def test_weights_are_constants_in_both_forms() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1] x) => (float[2] y, float[2] z)
    <float[2] w = {1, 2}, int8[2] w8 = {1, 2}, float s = {0.5}, int8 zero = {0}>
    {
        copy = Identity (w)
        w_q = QuantizeLinear (copy, s, zero)
        y = DequantizeLinear (w_q, s, zero)
        z = DequantizeLinear (w8, s, zero)
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    quantizers = [node for node in model.graph if node.op_type != "Identity"]
    assert not any(reading.is_activation(node) for node in quantizers)
    array = reading.constant(quantizers[0].inputs[0])
    assert array is not None and np.array_equal(array, [1, 2])
