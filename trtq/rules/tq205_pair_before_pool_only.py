"""TQ205 pair-before-pool-only: a max pool's input is quantized, its result is not, and a quantized layer reads that.

## What it does

Finds MaxPools (also in a chain) that read what a DequantizeLinear wrote, and whose result goes in float, through
operators that only pass values on, to a layer with quantized weights. One finding for each tensor that such layers
read. Behind a Concat the other branches count too: that is TQ209.

## Why it matters

A QuantizeLinear moves backward through a max pool, but a DequantizeLinear does not move forward through it: the pool
runs in float, and so does the layer, although pairs stand in front of both. An SPPCSPC with pairs in front of its pools
moves 24 % more bytes of activations in TensorRT-RTX 1.7 than with pairs behind them (15.4 against 12.4 MB).

## Fix

A pair behind the pool, in front of the layer, with the scale of the one before it. It moves back to meet that one, and
pool and layer run in int8.

## Fix safety

Lossless: a maximum of values on the steps of a scale lies on those steps.

Sources: TensorRT developer guide, "Explicit quantization" (quantizers of a max pool belong behind it); layer tables of
TensorRT-RTX 1.7.1 with pairs in front of and behind the pools of SPPCSPC, and in front of a pool alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import is_member, joint_of, wanted_int8
from trtq.rules import readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.origins import origins

CODE, NAME = "TQ205", "pair-before-pool-only"
POOLS = ("MaxPool", "GlobalMaxPool")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    pooled_q = QuantizeLinear (pooled, x_scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (pooled_dq, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x_dq)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (pooled, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each float tensor behind a dequantized max pool that quantized layers read."""
    for tensor, (quantizer, _) in _found(model).items():
        name = reading.name(tensor)
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(reading.name(quantizer.outputs[0]),),
            message=f"tensor '{name}': read in float by a quantized layer, although it comes through a max pool from"
            f" '{reading.name(quantizer.inputs[0])}', which is quantized; the fix adds a pair with the same scale"
            f" ({reading.scalar_scale(quantizer):.4g}) behind the pool",
            safety="lossless",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put pairs between the findings' tensors and the quantized layers, in place; return for how many tensors."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = {tensor: one for tensor, one in _found(model).items() if reading.name(tensor) in wanted}
    taken = editing.names(model) if found else set()
    for tensor, (quantizer, layers) in found.items():
        prefix = f"{reading.name(tensor)}_pooled"
        parameters = pairs.parameters_of(model, quantizer, prefix, taken)
        for layer in layers:
            pairs.insert(model, layer, tensor, parameters, taken, prefix=prefix)
    return len(found)


def _found(model: ir.Model) -> dict[ir.Value, tuple[ir.Node, list[ir.Node]]]:
    """Return float tensors behind dequantized pools, with the quantizer in front and the quantized layers behind."""
    carried: dict[int, ir.Node] = {}  # the quantizer from which tensors come through a pool at least
    wanted: set[int] | None = None
    known = origins(model)
    found: dict[ir.Value, tuple[ir.Node, list[ir.Node]]] = {}
    for node in model.graph:
        data = node.inputs[0] if node.inputs else None
        if node.op_type in reading.WEIGHTED:
            if data is not None and id(data) in carried and id(node.inputs[1]) in known:
                found.setdefault(data, (carried[id(data)], []))[1].append(node)
            continue
        joint = joint_of(node)
        if joint is None or joint.all_inputs:
            continue
        quantizer = carried.get(id(data))
        if quantizer is None and node.op_type in POOLS:
            quantizer = _same_scale(readers.dequantizer_before(data))
        if quantizer is None:
            continue
        wanted = wanted_int8(model) if wanted is None else wanted
        carried.update((id(value), quantizer) for value in node.outputs if id(value) not in wanted)
    return found


def _same_scale(dequantizer: ir.Node | None) -> ir.Node | None:
    """Return the quantizer in front of a DequantizeLinear where both have one usable scale."""
    quantizer = None if dequantizer is None else readers.quantizer_before(dequantizer)
    if dequantizer is None or quantizer is None or not is_member(quantizer):
        return None
    return quantizer if reading.scalar_scale(quantizer) == reading.scalar_scale(dequantizer) else None


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
