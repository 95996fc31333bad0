"""Q/DQ pairs: putting one between a tensor and a node that reads it, and taking one away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    quantize, dequantize = _pair(tensor, parameters, taken, prefix)
    model.graph.insert_before(reader, (quantize, dequantize))
    for index, value in enumerate(reader.inputs):
        if value is tensor:
            reader.replace_input_with(index, dequantize.outputs[0])
    return quantize


def insert_behind(model: ir.Model, tensor: ir.Value, parameters: Sequence[ir.Value], taken: set[str]) -> ir.Node:
    """Put a Q/DQ pair between `tensor`, which a node writes, and all that reads it, in place; return its quantizer.

    parameters, taken: as for `insert`. Where the tensor is an output of the network, that stays float.
    """
    writer = tensor.producer()
    assert writer is not None
    uses = list(tensor.uses())
    quantize, dequantize = _pair(tensor, parameters, taken, "")
    model.graph.insert_after(writer, (quantize, dequantize))
    for use in uses:
        use.node.replace_input_with(use.idx, dequantize.outputs[0])
    return quantize


def remove(model: ir.Model, quantizer: ir.Node) -> None:
    """Take away a pair whose integers only DequantizeLinears read, in place: their readers read what it quantized.

    An output of the network keeps its name: what wrote the tensor writes it now, or, where the tensor is needed under
    its own name too, an Identity.
    """
    tensor = quantizer.inputs[0]
    assert tensor is not None
    for output in list(_dequantized(quantizer.outputs[0])):
        node = output.producer()
        assert node is not None
        if output.is_graph_output():
            _give_out(model, tensor, output, node)
        output.replace_all_uses_with(tensor)
        drop(model, node)


def drop(model: ir.Model, node: ir.Node) -> None:
    """Take `node` away where nothing uses it, with all that only leads to it, in place."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.graph is None or any(value.uses() or value.is_graph_output() for value in one.outputs):
            continue
        inputs = [value for value in dict.fromkeys(one.inputs) if value is not None]
        model.graph.remove(one, safe=True)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                waiting.append(producer)
            else:
                editing.drop_unused(model, value)


def parameters_of(model: ir.Model, quantizer: ir.Node, prefix: str, taken: set[str]) -> tuple[ir.Value, ...]:
    """Return the scale and zero point of `quantizer` as initializers: a Constant node may stand behind a new reader."""
    return tuple(_initializer(model, value, prefix, taken) for value in quantizer.inputs[1:3])


def parameters_for(
    model: ir.Model, amax: float, prefix: str, taken: set[str], *, dtype: ir.DataType | None = None
) -> tuple[ir.Value, ...]:
    """Return a new scale, amax / 127, and a zero point of zero, int8.

    dtype: the tensor's own; a float16 tensor takes a float16 scale, anything else a float32 one.
    """
    scale = np.asarray(amax / INT8_BOUND, np.float16 if dtype == ir.DataType.FLOAT16 else np.float32)
    return (
        editing.add_initializer(model, editing.unused_name(f"{prefix}_scale", taken), scale),
        editing.add_initializer(model, editing.unused_name(f"{prefix}_zero_point", taken), np.asarray(0, np.int8)),
    )


def _pair(tensor: ir.Value, parameters: Sequence[ir.Value], taken: set[str], prefix: str) -> tuple[ir.Node, ir.Node]:
    """Return a QuantizeLinear on `tensor` and its DequantizeLinear, in no graph yet."""
    current = tensor
    made: list[ir.Node] = []
    for op_type, suffix, dtype in (
        (reading.QUANTIZE, "quantized", ir.DataType.INT8),
        (reading.DEQUANTIZE, "dequantized", tensor.dtype),
    ):
        label = editing.unused_name(f"{prefix or reading.name(tensor)}_{suffix}", taken)
        output = ir.Value(name=label, shape=tensor.shape, type=None if dtype is None else ir.TensorType(dtype))
        made.append(ir.node(op_type, [current, *parameters], outputs=[output], name=label))
        current = output
    return made[0], made[1]


def _dequantized(quantized: ir.Value) -> Iterator[ir.Value]:
    """Yield what the DequantizeLinears behind a quantized tensor write, through Identity."""
    for node in dict.fromkeys(quantized.consumers()):
        if reading.is_dequantize(node):
            yield node.outputs[0]
        else:
            yield from _dequantized(node.outputs[0])


def _give_out(model: ir.Model, tensor: ir.Value, output: ir.Value, node: ir.Node) -> None:
    """Make `tensor` the output of the network that `output`, written by `node`, is now."""
    places = [index for index, value in enumerate(model.graph.outputs) if value is output]
    name, given = output.name, tensor
    output.name = None
    if tensor.producer() is None or tensor.is_graph_output():
        given = ir.Value(name=name, shape=output.shape, type=output.type)
        model.graph.insert_before(node, ir.node("Identity", [tensor], outputs=[given], name=node.name))
    for index in places:
        model.graph.outputs[index] = given
    given.name = name
    given.type, given.shape = given.type or output.type, given.shape or output.shape


def _initializer(model: ir.Model, value: ir.Value | None, prefix: str, taken: set[str]) -> ir.Value:
    origin = reading.source(value)
    array = reading.constant(origin)
    assert origin is not None and array is not None
    if origin.is_initializer():
        return origin
    return editing.add_initializer(model, editing.unused_name(f"{prefix}_constant", taken), array)
