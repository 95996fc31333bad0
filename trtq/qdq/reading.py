"""Q/DQ graphs in the words that the rules use: what is constant, which scale a node has, what an activation is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import remembering

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# A chain of Identity nodes longer than this is not looked through; exporters write one.
IDENTITY_LIMIT = 64


@remembering.remembered
def nodes(model: ir.Model) -> tuple[ir.Node, ...]:
    """Return the nodes of the main graph in order; quicker to go over than the graph's linked list."""
    return tuple(model.graph)


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the array that `value` always holds (initializer, Constant node, either through Identity), else None."""
    value = source(value)
    return None if value is None else _array(value)


@remembering.remembered
def _array(value: ir.Value) -> npt.NDArray[Any] | None:
    if value.is_graph_input() and not value.is_initializer():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Tell whether `value` is an initializer or Constant, without reading its data."""
    value = source(value)
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def source(value: ir.Value | None) -> ir.Value | None:
    """Return the value behind a chain of Identity nodes."""
    producer = None if value is None else value.producer()
    for _ in range(IDENTITY_LIMIT):
        if producer is None or producer.op_type != "Identity":
            break
        value = producer.inputs[0]
        producer = None if value is None else value.producer()
    return value


def is_quantize(node: ir.Node | None) -> bool:
    """Tell whether `node` is a QuantizeLinear."""
    return node is not None and node.op_type == QUANTIZE


def is_dequantize(node: ir.Node | None) -> bool:
    """Tell whether `node` is a DequantizeLinear."""
    return node is not None and node.op_type == DEQUANTIZE


def is_activation(node: ir.Node) -> bool:
    """Tell whether a Q or DQ node works on an activation: anything that does not come from a constant."""
    return not is_constant(quantized_tensor(node))


def quantized_tensor(node: ir.Node) -> ir.Value | None:
    """Return the tensor that a Q or DQ node works on, behind Identity; for a DQ behind a Q, the one before that Q."""
    data = source(node.inputs[0])
    producer = data.producer() if data is not None else None
    if is_dequantize(node) and producer is not None and is_quantize(producer):
        data = source(producer.inputs[0])
    return data


def scale(node: ir.Node) -> npt.NDArray[Any] | None:
    """Return the scale of a Q or DQ node, or None when it is computed at run time."""
    return constant(node.inputs[1]) if len(node.inputs) > 1 else None


def scalar_scale(node: ir.Node) -> float | None:
    """Return a per-tensor scale as float, or None when it is per-channel or computed."""
    values = scale(node)
    return None if values is None or values.size != 1 else float(values.reshape(-1)[0])


def is_positive(scale: float) -> bool:
    """Tell whether `scale` is one that arithmetic can use: finite and greater than zero."""
    return 0 < scale < float("inf")


def zero_point(node: ir.Node) -> npt.NDArray[Any] | None:
    """Return the zero point of a Q or DQ node; None when it has none or computes it."""
    return constant(node.inputs[2]) if len(node.inputs) > 2 else None


def is_symmetric_int8(node: ir.Node) -> bool:
    """Tell whether a Q or DQ node is what TensorRT takes: int8, zero point present and zero."""
    values = zero_point(node)
    return values is not None and values.dtype == np.int8 and not values.any()


def label(node: ir.Node) -> str:
    """Return how messages call a node: its operator and first output, since names may be empty or repeated."""
    outputs = [value.name for value in node.outputs if value is not None and value.name]
    return f"{node.op_type} {outputs[0]}" if outputs else node.op_type


def name(value: ir.Value | None) -> str:
    """Return a tensor's name, or an empty string."""
    return "" if value is None or value.name is None else value.name
