"""Float types of tensors that the file does not state, followed through the graph."""

from __future__ import annotations

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.remembering import remembered


@remembered
def float_types(model: ir.Model) -> dict[int, ir.DataType]:
    """Return the float type of each tensor, by id, as far as it is known; linear in the graph's size.

    An operator without a row of its own writes the type of the first float that it reads, as ONNX's float operators do.
    """
    known: dict[int, ir.DataType] = {}
    for node in reading.nodes(model):
        dtype = _written(node, known)
        for value in node.outputs:
            stated = value.dtype or dtype
            if stated is not None and stated.is_floating_point():
                known[id(value)] = stated
    return known


def _written(node: ir.Node, known: dict[int, ir.DataType]) -> ir.DataType | None:
    if node.op_type == "Cast" and "to" in node.attributes:
        return ir.DataType(node.attributes["to"].as_int())
    if reading.is_quantize(node):
        return None
    if reading.is_dequantize(node):
        told = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        scale = node.inputs[1]
        return ir.DataType(told) if told else (None if scale is None else known.get(id(scale), scale.dtype))
    read = reversed(node.inputs) if node.op_type == "CastLike" else node.inputs
    for value in read:
        dtype = None if value is None else known.get(id(value), value.dtype)
        if dtype is not None and dtype.is_floating_point():
            return dtype
    return None
