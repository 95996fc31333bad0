"""Looking through the casts between float32 and FP16 that stand beside Q/DQ pairs: a view for what judges placement."""

from __future__ import annotations

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.float_types import FLOAT, HALF


def is_float_cast(node: ir.Node | None) -> bool:
    """Tell whether `node` casts float32 to FP16 or back."""
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return False
    return {node.inputs[0].dtype, ir.DataType(node.attributes["to"].as_int())} == {FLOAT, HALF}


def has_cast_pairs(model: ir.Model) -> bool:
    """Tell whether any Q/DQ pair computes in float32 between casts, as `fp16.to_fp16` leaves them."""
    for node in model.graph:
        value = node.inputs[0] if node.inputs else None
        producer = None if value is None else value.producer()
        if reading.is_quantize(node) and is_float_cast(producer) and node.inputs[0].dtype == FLOAT:  # type: ignore[union-attr]
            return True
        if is_float_cast(node) and reading.is_dequantize(producer) and value.dtype == FLOAT:  # type: ignore[union-attr]
            return True
    return False


def without_casts(model: ir.Model) -> ir.Model:
    """Return a copy whose nodes read each other as if the casts between the two float types were not there.

    Only to look at: its types no longer agree. The tensors that are left keep their names; a cast that writes an output
    of the network, or what is no data (a scale), stays.
    """
    view = model.clone()
    for node in list(view.graph):
        if not is_float_cast(node):
            continue
        for use in list(node.outputs[0].uses()):
            parameter = use.node.op_type in (reading.QUANTIZE, reading.DEQUANTIZE) and use.idx > 0
            if not parameter:
                use.node.replace_input_with(use.idx, node.inputs[0])
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            view.graph.remove(node, safe=True)
    return view
