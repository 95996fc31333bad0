"""Q/DQ pairs: putting one between a tensor and a node that reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import editing, reading

INT8_BOUND = 127


def insert(
    model: ir.Model,
    reader: ir.Node,
    tensor: ir.Value,
    parameters: Sequence[ir.Value],
    taken: set[str],
    *,
    prefix: str = "",
) -> ir.Node:
    """Put a Q/DQ pair between `tensor` and `reader`, in place; return its QuantizeLinear.

    parameters: scale and zero point, as `parameters_of` or `parameters_for` give them. taken: all names of the graph.
    prefix: what the new names start with; the tensor's own name when empty.
    """
    current = tensor
    made: list[ir.Node] = []
    for op_type, suffix, dtype in (
        (reading.QUANTIZE, "quantized", ir.DataType.INT8),
        (reading.DEQUANTIZE, "dequantized", tensor.dtype),
    ):
        label = editing.unused_name(f"{prefix or reading.name(tensor)}_{suffix}", taken)
        output = ir.Value(name=label, shape=tensor.shape, type=None if dtype is None else ir.TensorType(dtype))
        made.append(ir.node(op_type, [current, *parameters], outputs=[output], name=label))
        model.graph.insert_before(reader, made[-1])
        current = output
    for index, value in enumerate(reader.inputs):
        if value is tensor:
            reader.replace_input_with(index, current)
    return made[0]


def parameters_of(model: ir.Model, quantizer: ir.Node, prefix: str, taken: set[str]) -> tuple[ir.Value, ...]:
    """Return the scale and zero point of `quantizer` as initializers: a Constant node may stand behind a new reader."""
    return tuple(_initializer(model, value, prefix, taken) for value in quantizer.inputs[1:3])


def parameters_for(model: ir.Model, amax: float, prefix: str, taken: set[str]) -> tuple[ir.Value, ...]:
    """Return a new scale, amax / 127 as float32, and a zero point of zero, int8."""
    scale = np.asarray(amax / INT8_BOUND, np.float32)
    return (
        editing.add_initializer(model, editing.unused_name(f"{prefix}_scale", taken), scale),
        editing.add_initializer(model, editing.unused_name(f"{prefix}_zero_point", taken), np.asarray(0, np.int8)),
    )


def _initializer(model: ir.Model, value: ir.Value | None, prefix: str, taken: set[str]) -> ir.Value:
    origin = reading.source(value)
    array = reading.constant(origin)
    assert origin is not None and array is not None
    if origin.is_initializer():
        return origin
    return editing.add_initializer(model, editing.unused_name(f"{prefix}_constant", taken), array)
