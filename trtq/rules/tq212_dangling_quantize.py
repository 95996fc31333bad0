"""TQ212 dangling-quantize: a QuantizeLinear or DequantizeLinear that leads nowhere.

## What it does

Finds QuantizeLinears and DequantizeLinears whose result nothing needs, of activations and of weights, and
QuantizeLinears whose integers no DequantizeLinear turns back: another operator calculates with them as if they were the
values. One finding for a tensor. Integers that the network hands out, or that an integer operator reads (TQ403), are
what somebody wanted.

## Why it matters

A quantizer counts as a consumer of its tensor. One that leads nowhere keeps the others from merging and moving, gives
the tensor a scale that is nobody's, and pulls it into a scale group. Integers without a DequantizeLinear have lost
their scale: TensorRT 8 refuses most operators on them, and others calculate something else than was meant.

## Fix

What leads nowhere goes, with the constants that only it reads. Where integers are read without a DequantizeLinear,
nothing is changed: the file does not say what was meant.

## Fix safety

Lossless for what leads nowhere. The other kind needs review.

Sources: TensorRT developer guide, "Explicit quantization" (a QuantizeLinear is followed by a DequantizeLinear); pass
HorizontalMergeQNodes in verbose build logs of TensorRT 8.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.qdq.groups import joint_of
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.tq403_integer_operator import INTEGER

CODE, NAME = "TQ212", "dangling-quantize"

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
    """    y = Conv (x_dq, w)
    unread_q = QuantizeLinear (x, x_scale, zero)
    unread_dq = DequantizeLinear (unread_q, x_scale, zero)
""",
)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor with converters that lead nowhere, or whose integers are read as values."""
    for name, nodes in _dead(model).items():
        quantized = tuple(reading.name(node.outputs[0]) for node in nodes if reading.is_quantize(node))
        kinds = " and ".join(dict.fromkeys(node.op_type for node in nodes))
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=quantized,
            message=f"tensor '{name}': {kinds} on it, which nothing needs; the fix takes away what leads nowhere",
            safety="lossless",
            fixable=True,
        )
    for quantizer, reader in _without_dequantize(model):
        name = reading.name(quantizer.inputs[0])
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': quantized, and {reader.op_type} '{reading.name(reader.outputs[0])}' reads its"
            " integers without a DequantizeLinear in front; put one there, or take the QuantizeLinear away",
            safety="needs review",
            fixable=False,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Take away what leads nowhere, in place; return for how many tensors."""
    wanted = {name for finding in findings if finding.fixable for name in finding.tensors}
    found = {name: nodes for name, nodes in _dead(model).items() if name in wanted}
    for nodes in found.values():
        for node in reversed(nodes):
            constants = [value for value in node.inputs if reading.is_constant(value)]
            model.graph.remove(node, safe=True)
            for value in constants:
                editing.drop_unused(model, value)
    return len(found)


def _dead(model: ir.Model) -> dict[str, list[ir.Node]]:
    """Return the converters that lead nowhere, by the tensor that they work on, producers first."""
    dead: set[ir.Node] = set()
    found: list[ir.Node] = []
    for node in reversed(reading.nodes(model)):
        if not (reading.is_quantize(node) or reading.is_dequantize(node)):
            continue
        output = node.outputs[0]
        if not output.is_graph_output() and all(reader in dead for reader in output.consumers()):
            dead.add(node)
            found.append(node)
    result: dict[str, list[ir.Node]] = {}
    for node in reversed(found):
        result.setdefault(reading.name(reading.quantized_tensor(node)), []).append(node)
    return result


def _without_dequantize(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield each quantizer whose integers no DequantizeLinear reads, with an operator that reads them as values."""
    dequantized: set[int] = set()
    quantizers = []
    reads: dict[int, ir.Node] = {}
    for node in reversed(reading.nodes(model)):
        if reading.is_dequantize(node):
            dequantized.add(id(node.inputs[0]))
        elif joint_of(node) is not None and any(id(value) in dequantized for value in node.outputs):
            dequantized.update(map(id, node.inputs))
        elif reading.is_quantize(node):
            quantizers.append(node)
    for node in quantizers:
        for reader in node.outputs[0].consumers():
            if reader.op_type not in INTEGER and not reader.op_type.startswith("QLinear"):
                reads.setdefault(id(node.outputs[0]), reader)
    for node in reversed(quantizers):
        integers = id(node.outputs[0])
        if integers in reads and integers not in dequantized and not node.outputs[0].is_graph_output():
            yield node, reads[integers]


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
