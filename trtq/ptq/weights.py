"""Weights of a float network: int8 per output channel, stored as integers or as floats with a pair behind."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.errors import ModelError
from trtq.qdq import editing, reading
from trtq.qdq.clean import quantize
from trtq.qdq.pairs import INT8_BOUND

Weights = Literal["int8", "float"]
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # below it TensorRT refuses a scale as denormal


def is_zero(amax: float) -> bool:
    """Tell whether a tensor of this range has no scale that TensorRT takes."""
    return amax / INT8_BOUND < SMALLEST_SCALE


class WeightWriter:
    """Quantizes the weights of one network's layers, each constant once for all layers that share it."""

    def __init__(self, model: ir.Model, form: Weights, taken: set[str]) -> None:
        self.model = model
        self.form = form
        self.taken = taken
        self.done: dict[tuple[ir.Value | None, int], ir.Value | None] = {}

    def quantize(self, node: ir.Node) -> bool:
        """Make `node` read its weight through a DQ; return False, and do nothing, for a weight that is all zero.

        Raises `ModelError` for a weight that is not finite.
        """
        axis = output_axis(node)
        key = (reading.source(node.inputs[1]), axis)
        if key not in self.done:
            self.done[key] = self._dequantized(node, axis)
        new = self.done[key]
        if new is not None:
            replaced = node.inputs[1]
            node.replace_input_with(1, new)
            editing.drop_unused(self.model, replaced)
        return new is not None

    def _dequantized(self, node: ir.Node, axis: int) -> ir.Value | None:
        values = reading.constant(node.inputs[1])
        assert values is not None
        if not np.isfinite(values).all():
            raise ModelError(f"{reading.label(node)}: its weight holds NaN or infinity; check the checkpoint")
        channels = np.abs(values).max(axis=tuple(one for one in range(values.ndim) if one != axis))
        scales = (channels / INT8_BOUND).astype(np.float32)
        if scales.max() < SMALLEST_SCALE:
            return None
        # A channel of zeros is exact at any scale; TensorRT wants a positive one.
        scales[scales < SMALLEST_SCALE] = scales.max()
        name = reading.name(reading.source(node.inputs[1]))
        parameters = [
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(scales.size, np.int8)),
        ]
        shape = ir.Shape(values.shape)
        if self.form == "int8":
            stored: ir.Value | None = self._constant(f"{name}_int8", quantize(values, scales, axis))
        else:
            made = ir.node(reading.QUANTIZE, [node.inputs[1], *parameters], attributes={"axis": axis})
            stored = self._put(made, node, f"{name}_quantized", ir.DataType.INT8, shape)
        made = ir.node(reading.DEQUANTIZE, [stored, *parameters], attributes={"axis": axis})
        return self._put(made, node, f"{name}_dequantized", ir.DataType.FLOAT, shape)

    def _constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        return editing.add_initializer(self.model, editing.unused_name(name, self.taken), array)

    def _put(self, node: ir.Node, reader: ir.Node, name: str, dtype: ir.DataType, shape: ir.Shape) -> ir.Value:
        """Put a node before the first node that reads it (layers come in graph order) and return its output."""
        node.name = editing.unused_name(name, self.taken)
        output = node.outputs[0]
        output.name, output.type, output.shape = node.name, ir.TensorType(dtype), shape
        self.model.graph.insert_before(reader, node)
        return output


def output_axis(node: ir.Node) -> int:
    """Return the weight's axis of output channels: 0 for Conv and for Gemm with transB, the last one otherwise."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    return len(weight.shape) - 1
