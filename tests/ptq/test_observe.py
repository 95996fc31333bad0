from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from trtq.errors import DataError, ModelError
from trtq.ptq import input_shape, observe

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[N,2] x) => (float[N,2] y)
<float scale = {0.5}, int8 zero = {0}>
{
    doubled = Add (x, x)
    q = QuantizeLinear (doubled, scale, zero)
    y = DequantizeLinear (q, scale, zero)
}
"""


def network(text: str = TEXT) -> ir.Model:
    return ir.from_proto(parser.parse_model(text))


def test_it_shows_inputs_floats_integers_and_outputs_batch_by_batch() -> None:
    model = network()
    images = [np.array([[0.1, 0.2]], np.float32), np.array([[1, 2], [3, 40]], np.float32)]
    found = list(observe(model, ("q", "x", "y", "doubled"), images))
    assert [list(one) for one in found] == [["q", "x", "y", "doubled"]] * 2
    for one, image in zip(found, images, strict=True):
        assert np.array_equal(one["x"], image) and np.array_equal(one["doubled"], 2 * image)
        assert one["q"].dtype == np.int8
        assert np.array_equal(one["q"], np.clip(np.rint(4 * image), -128, 127))
        assert np.array_equal(one["y"], one["q"] * np.float32(0.5))
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_a_fixed_batch_is_filled_up_and_half_precision_fed() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> network (float16[2,2] x) => (float16[2,2] y) { y = Add (x, x) }'
    (one,) = observe(network(text), ("y",), [np.array([[1, 2]], np.float32)])
    assert one["y"].dtype == np.float16
    assert np.array_equal(one["y"], [[2, 4], [2, 4]])


def test_what_cannot_be_observed_is_said() -> None:
    with pytest.raises(ModelError, match="no tensor 'z'"):
        list(observe(network(), ("z",), [np.zeros((1, 2), np.float32)]))
    with pytest.raises(DataError, match="NaN"):
        list(observe(network(), ("y",), [np.full((1, 2), np.nan, np.float32)]))


def test_input_shape_marks_free_dimensions_and_wants_one_input() -> None:
    assert input_shape(network()) == (-1, 2)
    two = TEXT.replace("(float[N,2] x)", "(float[N,2] x, float[1] z)")
    with pytest.raises(ModelError, match="inputs are x, z"):
        input_shape(network(two))
