"""TQ202 half-quantized-op: one of a layer's two inputs is quantized and the other one is not.

## What it does

Finds Conv, ConvTranspose, Gemm and MatMul that read a quantized activation and float weights, quantized weights and a
float activation, or one quantized activation of two. An input counts as quantized when it comes from a
DequantizeLinear through operators that only pass values on. One finding for each float tensor, with all the layers that
read it.

## Why it matters

The layer runs in float, and whatever was quantized is converted back first: quantizing one input alone costs accuracy
and time and gains nothing. TensorRT-RTX 1.7 compiles both halves to a float convolution, and so does classic TensorRT,
which takes an int8 kernel only where a DequantizeLinear stands on every input.

## Fix

The other half. Weights get symmetric int8 scales from their own largest values, one for each output channel, in the
float form (float, QuantizeLinear, DequantizeLinear) that every TensorRT reads; TQ313 stores them as int8 where the
target reads that. An activation gets a pair with the scale of a quantizer that reads it already, or with its range on
`--calibration IMAGES`. No scale is invented. To leave the layer in float instead, take the one pair away.

## Fix safety

Numeric: the layer now calculates in int8, as the half that was there suggests.

Sources: TensorRT developer guide, "Explicit quantization" (quantize all inputs of weighted operators; per-channel
weights; DQ on both inputs); layer tables of TensorRT-RTX 1.7.1 with pairs on weights alone and on activations alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules import missing_pairs, readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.missing_pairs import Place
from trtq.rules.origins import origins
from trtq.rules.scale_groups import listed
from trtq.rules.weights import channel_scales, output_axis

CODE, NAME = "TQ202", "half-quantized-op"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float[2] w_scale = {0.004, 0.008}, int8 zero = {0}, int8[2] zeros = {0, 0},
 float[2,2,1,1] w = {0.25, 0.5, -0.5, 1.0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w_q = QuantizeLinear <axis = 0> (w, w_scale, zeros)
    w_dq = DequantizeLinear <axis = 0> (w_q, w_scale, zeros)
    y = Conv (x_dq, w_dq)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 zero = {0}, float[2,2,1,1] w = {0.25, 0.5, -0.5, 1.0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    y = Conv (x_dq, w)
}
"""


@dataclass
class Half:
    """A float tensor, the layers that read it, and the quantizers of what else they read."""

    tensor: ir.Value
    layers: list[ir.Node] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def weights(self) -> bool:
        """Whether the float half is a constant."""
        return reading.is_constant(self.tensor)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each float tensor that layers read beside a quantized one."""
    found = _found(model)
    ranges = missing_pairs.ranges_of(model, [one.tensor for one in found if not one.weights], context)
    for one in found:
        name, layers = reading.name(one.tensor), [reading.name(node.outputs[0]) for node in one.layers]
        if one.weights:
            what, fixable = "weights", _quantizable(one)
            remedy = (
                "the fix quantizes them, one scale for each output channel"
                if fixable
                else "they are not finite numbers: mend that first (TQ311)"
            )
        else:
            own = ranges[id(one.tensor)]
            what, fixable, remedy = "activation", own.known, own.remedy
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=tuple(dict.fromkeys(one.others)),
            message=f"tensor '{name}': the float {what} of {listed(layers)}, whose other input is quantized, so that it"
            f" runs in float; {remedy}",
            safety="numeric",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Quantize the findings' tensors, in place; return how many."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = [one for one in _found(model) if reading.name(one.tensor) in wanted]
    taken = editing.names(model) if found else set()
    weights = [one for one in found if one.weights and _quantizable(one)]
    for one in weights:
        for layer in one.layers:
            _quantize_weights(model, layer, one.tensor, taken)
    activations = [one for one in found if not one.weights]
    known = missing_pairs.ranges_of(model, [one.tensor for one in activations], context)
    places = [Place(layer, one.tensor) for one in activations for layer in one.layers]
    missing_pairs.mend(model, places, context, "input")
    return len(weights) + sum(known[id(one.tensor)].known for one in activations)


def _found(model: ir.Model) -> list[Half]:
    """Return the float halves in graph order."""
    found: dict[int, Half] = {}
    known = origins(model)
    for node in reading.nodes(model):
        if node.op_type not in reading.WEIGHTED or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
            continue
        before = [known.get(id(value)) for value in node.inputs[:2]]
        floats = [value for value, one in zip(node.inputs, before, strict=False) if one is None and value is not None]
        dequantizer = next((one for one in before if one is not None), None)
        if len(floats) != 1 or dequantizer is None:
            continue
        half = found.setdefault(id(floats[0]), Half(floats[0]))
        half.layers.append(node)
        quantizer = readers.quantizer_before(dequantizer)
        if quantizer is not None and not reading.is_constant(quantizer.inputs[0]):
            half.others.append(reading.name(quantizer.outputs[0]))
    return list(found.values())


def _quantizable(one: Half) -> bool:
    values = reading.constant(one.tensor)
    return values is not None and values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _quantize_weights(model: ir.Model, layer: ir.Node, weights: ir.Value, taken: set[str]) -> None:
    """Put Q and DQ with scales from the weights themselves between a constant and a layer."""
    values = reading.constant(weights)
    assert values is not None
    axis = output_axis(layer) % values.ndim
    # Per output channel, but for ConvTranspose, of whose axis TensorRT's versions think differently (TQ312).
    per_channel = layer.op_type != "ConvTranspose" and layer.inputs[1] is weights and values.ndim > 1
    flat = values if per_channel else values.reshape(1, -1)
    scales = channel_scales(flat, axis if per_channel else 0, values.dtype)
    scales = scales if per_channel else scales.reshape(())
    prefix = reading.name(reading.source(weights))
    parameters = [
        editing.add_initializer(model, editing.unused_name(f"{prefix}_scale", taken), scales),
        editing.add_initializer(model, editing.unused_name(f"{prefix}_zero", taken), np.zeros(scales.shape, np.int8)),
    ]
    current = weights
    for kind, suffix, dtype in (
        (reading.QUANTIZE, "quantized", ir.DataType.INT8),
        (reading.DEQUANTIZE, "dequantized", weights.dtype),
    ):
        label = editing.unused_name(f"{prefix}_{suffix}", taken)
        output = ir.Value(name=label, shape=weights.shape, type=None if dtype is None else ir.TensorType(dtype))
        attributes = {"axis": axis} if per_channel else {}
        made = ir.node(kind, [current, *parameters], attributes=attributes, outputs=[output], name=label)
        model.graph.insert_before(layer, made)
        current = output
    for index, value in enumerate(layer.inputs):
        if value is weights:
            layer.replace_input_with(index, current)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
