"""TQ210 output-quantized: an output of the network is quantized and dequantized before it is handed out.

## What it does

Finds Q/DQ pairs on a computed tensor from which nothing but outputs of the network can be reached, directly or through
Reshape, Transpose, Concat and other operators that only copy. A pair whose integers or values an operator reads as well
is left alone: there the tensor is needed in int8 anyway. One finding for a pair.

## Why it matters

Nobody reads the int8 tensor. The kernel in front writes it, a DequantizeLinear kernel turns it back into float, and the
result that users see has at most 256 different values. Without the pair the last kernel writes the float output by
itself. NVIDIA's placement recommendations: do not quantize the outputs of the network's layers by default.

## Fix

The pair goes; the output keeps its name.

## Fix safety

Numeric: the output is no longer rounded, nor cut at the ends of the pair's range.

Sources: TensorRT developer guide, "Explicit quantization", Q/DQ layer-placement recommendations; layer tables of the
ResNet18 engines, whose last residual pair is undone by a DequantizeLinear kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import pairs, reading
from trtq.qdq.groups import joint_of
from trtq.rules import readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.missing_pairs import PASSES_ALL

CODE, NAME = "TQ210", "output-quantized"

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
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float y_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    result = Conv (x_dq, w)
    result_q = QuantizeLinear (result, y_scale, zero)
    y = DequantizeLinear (result_q, y_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each pair that only outputs of the network read."""
    for quantizer in _found(model):
        name = reading.name(quantizer.inputs[0])
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(reading.name(quantizer.outputs[0]),),
            message=f"tensor '{name}': quantized although only outputs of the network read it, so it is rounded and"
            " converted back to float for nothing; the fix takes the pair away",
            safety="numeric",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Take the findings' pairs away, in place; return how many."""
    wanted = {name for finding in findings for name in finding.removes}
    found = [one for one in _found(model) if reading.name(one.outputs[0]) in wanted]
    for quantizer in found:
        pairs.remove(model, quantizer)
    return len(found)


def _found(model: ir.Model) -> list[ir.Node]:
    """Return the quantizers of such pairs in graph order."""
    ending: set[ir.Node] = set()
    quantizers = []
    needed: set[int] = set()  # tensors that are quantized for other readers too
    for node in reversed(reading.nodes(model)):
        copies = reading.is_quantize(node) or reading.is_dequantize(node) or _copies(node)
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        if copies and used and all(reader in ending for value in used for reader in value.consumers()):
            ending.add(node)
            if reading.is_quantize(node):
                quantizers.append(node)
        elif reading.is_quantize(node):
            needed.add(id(node.inputs[0]))
    if not quantizers:
        return []
    computed = _computed(model)
    alone = (one for one in reversed(quantizers) if id(one.inputs[0]) not in needed)
    return [one for one in alone if id(one.inputs[0]) in computed and _can_go(one)]


def _can_go(quantizer: ir.Node) -> bool:
    """Tell whether taking the pair away keeps every type."""
    tensor = quantizer.inputs[0]
    dequantizers = readers.dequantizers_of(quantizer)
    if tensor is None or not dequantizers:
        return False
    types = {value.dtype for value in (tensor, *(node.outputs[0] for node in dequantizers))} - {None}
    return len(types) < 2


def _computed(model: ir.Model) -> set[int]:
    """Return the ids of the tensors that an operator computes: no constants, and no inputs that are only passed on."""
    computed: set[int] = set()
    for node in reading.nodes(model):
        if node.op_type == "Constant":
            continue
        passes = reading.is_quantize(node) or reading.is_dequantize(node) or joint_of(node) is not None
        if not passes or any(id(value) in computed for value in node.inputs):
            computed.update(map(id, node.outputs))
    return computed


def _copies(node: ir.Node) -> bool:
    return node.op_type in PASSES_ALL and joint_of(node) is not None


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
