"""TQ211 double-pair: a tensor is quantized, dequantized, and quantized again in the very same way.

## What it does

Finds QuantizeLinears that read what a DequantizeLinear with the same scale, zero point and type wrote, weights
included. One finding for each second quantizer. With different scales the second one changes the values: that is TQ106.

## Why it matters

The second quantizer gives back the integers that it started from. TensorRT and TensorRT-RTX cancel the two, so this
costs no time there; it costs whatever has to look through it: ONNX Runtime runs both, and rules that match a pair and
the operator behind it see a tensor that is needed in float. Exporters leave such pairs where two modules each quantize,
one its output and the next one its input.

## Fix

What reads the second quantizer reads the integers of the first pair; the converters in between go where nothing else
reads them.

## Fix safety

Lossless: rounding what lies on the steps of a scale to that same scale changes nothing.

Sources: ONNX QuantizeLinear; ModelOpt, concat elimination (a DequantizeLinear and a QuantizeLinear of equal scales both
vanish); layer tables of TensorRT-RTX 1.7.1, which round once for pairs of one scale and twice for two scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import pairs, reading
from trtq.rules import readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import parameters

CODE, NAME = "TQ211", "double-pair"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w)
}
"""
BAD = GOOD.replace(
    """    y = Conv (x_dq, w)
""",
    """    again_q = QuantizeLinear (x_dq, x_scale, zero)
    again_dq = DequantizeLinear (again_q, x_scale, zero)
    y = Conv (again_dq, w)
""",
)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each quantizer that undoes the DequantizeLinear in front of it."""
    for quantizer, _ in _found(model):
        name = reading.name(quantizer.inputs[0])
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(reading.name(quantizer.outputs[0]),),
            message=f"tensor '{name}': dequantized and at once quantized again with the same scale; the fix reads the"
            " first integers instead",
            safety="lossless",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Take the findings' second quantizers away, in place; return how many."""
    wanted = {name for finding in findings for name in finding.removes}
    found = [one for one in _found(model) if reading.name(one[0].outputs[0]) in wanted]
    for quantizer, dequantizer in found:
        integers = dequantizer.inputs[0]
        assert integers is not None
        quantizer.outputs[0].replace_all_uses_with(integers)
        pairs.drop(model, quantizer)
    return len(found)


def _found(model: ir.Model) -> list[tuple[ir.Node, ir.Node]]:
    """Return such quantizers in graph order, each with the DequantizeLinear that it undoes."""
    found = []
    for node in reading.nodes(model):
        before = readers.dequantizer_before(node.inputs[0]) if reading.is_quantize(node) else None
        if before is None or not node.outputs[0].uses() or node.outputs[0].is_graph_output():
            continue
        first, second = parameters(before), parameters(node)
        if first is not None and second is not None and first.equals(second):
            found.append((node, before))
    return found


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
