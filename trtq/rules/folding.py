"""Folding a BatchNormalization into the Conv in front of it, weights float or quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.rules import readers

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
LOWEST_INT8 = -128
DEFAULT_EPSILON = 1e-5  # ONNX BatchNormalization

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Fold:
    """A BatchNormalization, the Conv whose result it alone reads, and why it cannot be folded; empty where it can."""

    normalization: ir.Node
    convolution: ir.Node
    obstacle: str


def obstacle(normalization: ir.Node, convolution: ir.Node) -> str:
    """Return why the two cannot be folded, in words, or an empty string."""
    training = normalization.attributes.get("training_mode")
    outputs = [value for value in normalization.outputs[1:] if value.uses() or value.is_graph_output()]
    if (training is not None and training.as_int()) or outputs:
        return "it is exported in training mode: export the network again in evaluation mode"
    if any(reading.constant(value) is None for value in normalization.inputs[1:5]):
        return "its statistics are not constants: export the network again with them in the file"
    bias = convolution.inputs[2] if len(convolution.inputs) > 2 else None
    if bias is not None and reading.constant(bias) is None:
        return "the bias of the Conv is not a constant float (TQ310): mend that first"
    factors, _ = _line(normalization)
    if not np.isfinite(factors).all():
        return "its variance is negative, infinite or not a number: check the network's weights"
    return _weights_obstacle(convolution, factors)


def fold(model: ir.Model, one: Fold, taken: set[str]) -> None:
    """Fold, in place; `one` must have no obstacle. taken: all names of the graph."""
    factors, offsets = _line(one.normalization)
    normalization, convolution = one.normalization, one.convolution
    bias = reading.constant(convolution.inputs[2]) if len(convolution.inputs) > 2 else None
    start = np.zeros_like(offsets) if bias is None else bias.astype(np.float64)
    dtype = _dtype(convolution)
    name = f"{reading.name(convolution.outputs[0])}_bias"
    folded = _constant(model, name, (start * factors + offsets).astype(dtype), taken)
    inputs = [convolution.inputs[0], _folded_weights(model, convolution, factors, taken), folded]
    old = normalization.outputs[0]
    new = ir.Value(name=old.name, shape=old.shape, type=old.type)
    made = ir.node("Conv", inputs, attributes=convolution.attributes, outputs=[new], name=convolution.name)
    made.doc_string = convolution.doc_string
    made.metadata_props.update(convolution.metadata_props)
    model.graph.insert_before(normalization, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    pairs.drop(model, normalization)


def _line(normalization: ir.Node) -> tuple[Array, Array]:
    """Return factor and offset of each channel: y = factor x + offset, float64."""
    scale, beta, mean, variance = (_float64(value) for value in normalization.inputs[1:5])
    given = normalization.attributes.get("epsilon")
    epsilon = DEFAULT_EPSILON if given is None else given.as_float()
    with np.errstate(all="ignore"):  # what is not finite becomes an obstacle
        factors = scale / np.sqrt(variance + epsilon)
    return factors, beta - mean * factors


def _weights_obstacle(convolution: ir.Node, factors: Array) -> str:
    weights = convolution.inputs[1]
    dequantizer = readers.dequantizer_before(weights)
    if dequantizer is None:
        values = reading.constant(weights)
        return "" if values is not None and values.dtype.kind == "f" else "the weights of the Conv are not constants"
    quantizer = readers.quantizer_before(dequantizer)
    nodes = [dequantizer] if quantizer is None else [quantizer, dequantizer]
    values = reading.constant(nodes[0].inputs[0])
    if values is None:
        return "the weights of the Conv are not constants"
    if not all(map(reading.is_symmetric_int8, nodes)):
        return "the weights of the Conv are not symmetric int8: mend that first (TQ301 to TQ303)"
    for node in nodes:
        scale = reading.scale(node)
        if scale is None or scale.size not in (1, values.shape[0]) or (scale.size > 1 and _axis(node, values.ndim)):
            return "the scales of its weights are not one for each output channel: mend that first (TQ307, TQ309)"
        scaled = np.abs(scale.astype(np.float64).reshape(-1) * factors)
        if not (((scaled >= SMALLEST_SCALE) | (factors == 0)) & np.isfinite(scaled)).all():
            return "a channel's factor makes the scale of its weights too small or too large"
    if values.dtype == np.int8 and (values[factors < 0] == LOWEST_INT8).any():
        return "a channel with a negative factor holds the integer -128, whose opposite int8 lacks"
    return ""


def _folded_weights(model: ir.Model, convolution: ir.Node, factors: Array, taken: set[str]) -> ir.Value:
    """Return the Conv's weights times each channel's factor, as new constants: others may share the old ones."""
    weights, name = convolution.inputs[1], reading.name(convolution.outputs[0])
    dequantizer = readers.dequantizer_before(weights)
    if dequantizer is None:
        values = reading.constant(weights)
        assert values is not None
        return _constant(model, f"{name}_weights", _times(values, factors), taken)
    quantizer = readers.quantizer_before(dequantizer)
    nodes = [dequantizer] if quantizer is None else [quantizer, dequantizer]
    stored = reading.constant(nodes[0].inputs[0])
    assert stored is not None
    by = np.sign(factors) if stored.dtype.kind == "i" else factors
    current = _constant(model, f"{name}_weights", _times(stored, by), taken)
    for node in nodes:
        current = _scaled(model, convolution, node, current, factors, taken)
    return current


def _scaled(
    model: ir.Model, convolution: ir.Node, node: ir.Node, data: ir.Value, factors: Array, taken: set[str]
) -> ir.Value:
    """Return what a copy of a Q or DQ node writes whose scales take the factors; a channel times zero keeps its own."""
    scale = reading.scale(node)
    assert scale is not None
    scales = np.broadcast_to(scale.reshape(-1).astype(np.float64), factors.shape)
    scales = np.where(factors == 0, scales, scales * np.abs(factors)).astype(scale.dtype)
    prefix, old = reading.name(convolution.outputs[0]), node.outputs[0]
    parameters = (
        _constant(model, f"{prefix}_weights_scale", scales, taken),
        _constant(model, f"{prefix}_weights_zero", np.zeros(scales.shape, np.int8), taken),
    )
    kind = "quantized" if reading.is_quantize(node) else "dequantized"
    name = editing.unused_name(f"{prefix}_weights_{kind}", taken)
    output = ir.Value(name=name, shape=old.shape, type=old.type)
    made = ir.node(node.op_type, [data, *parameters], attributes={"axis": 0}, outputs=[output], name=name)
    model.graph.insert_before(convolution, made)
    return output


def _constant(model: ir.Model, name: str, array: Array, taken: set[str]) -> ir.Value:
    return editing.add_initializer(model, editing.unused_name(name, taken), array)


def _times(values: Array, factors: Array) -> Array:
    product: Array = values.astype(np.float64) * factors.reshape([-1] + [1] * (values.ndim - 1))
    return product.astype(values.dtype)


def _dtype(convolution: ir.Node) -> np.dtype[Any]:
    """Return the float type that the Conv calculates in: that of its weights, or of their scales."""
    dequantizer = readers.dequantizer_before(convolution.inputs[1])
    values = reading.constant(convolution.inputs[1]) if dequantizer is None else reading.scale(dequantizer)
    assert values is not None
    return values.dtype


def _axis(node: ir.Node, rank: int) -> int:
    return (node.attributes["axis"].as_int() if "axis" in node.attributes else 1) % rank


def _float64(value: ir.Value | None) -> Array:
    values = reading.constant(value)
    assert values is not None
    return values.astype(np.float64)
