"""TQ201 residual-not-quantized: a quantized Conv+Add reads its residual input in float.

## What it does

Finds Adds of two activations where one comes from an int8 Conv (through BatchNormalization, an activation and Dropout
at most, each read once), the sum is quantized by its consumers, and the other input, the residual, has no Q/DQ pair.
When both inputs come from such a Conv, the first is the one that fuses and the other is the residual.

## Why it matters

The fused Conv+Add kernel writes the precision of its residual input: with a float residual it writes float, and the
quantizer behind it stays as a kernel of its own (pass `QuantizeConvWithResidualAdd` needs both inputs quantized).
ResNet18 on an A100 with batch 32: 1130 queries a second without, 1823 with quantized residuals, 1155 in FP16.

## Fix

A Q/DQ pair on the residual input, with the scale of a quantizer that reads the same tensor already (the widest one).
Where nothing quantizes that tensor, its range is not in the file: calibrate, then the pair can be added. No scale is
invented.

## Fix safety

Numeric: the residual is now rounded too, in the steps that another consumer already uses. No scale changes.

Sources: TensorRT developer guide, "Explicit quantization", Q/DQ layer-placement recommendations ("quantize the residual
input"); NVIDIA tensorflow-quantization, ResNet case: every Add input except the one from Conv(-BN-activation) with a
single consumer; pytorch-quantization, "Further optimization" of ResNet50; layer tables of the ResNet18 engines.
TensorRT-RTX 1.7 saves 10 % of a block's traffic with an equal scale and nothing with another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import is_member, joint_of, wanted_int8
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ201", "residual-not-quantized"
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "HardSwish", "Sigmoid", "Tanh", "Dropout", "Identity")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float y_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    branch = Conv (x_dq, w)
    residual_q = QuantizeLinear (x, x_scale, zero)
    residual = DequantizeLinear (residual_q, x_scale, zero)
    sum = Add (branch, residual)
    active = Relu (sum)
    active_q = QuantizeLinear (active, y_scale, zero)
    y = DequantizeLinear (active_q, y_scale, zero)
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
    branch = Conv (x_dq, w)
    sum = Add (branch, x)
    active = Relu (sum)
    active_q = QuantizeLinear (active, y_scale, zero)
    y = DequantizeLinear (active_q, y_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each float residual input of a quantized Conv+Add."""
    for add, residual in _residuals(model):
        name, sum_name = reading.name(residual), reading.name(add.outputs[0])
        known = _quantizer(residual)
        remedy = (
            f"the fix adds a pair with the scale that it already has for another consumer ({_scale(known):.4g})"
            if known
            else "its range is not in the file: calibrate, then add a Q/DQ pair on this input"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=tuple(reading.name(node.outputs[0]) for node in _quantizers(_activated(add.outputs[0]))),
            message=f"tensor '{name}': the float residual of the quantized sum '{sum_name}', so TensorRT writes the sum"
            f" in float and converts it; {remedy}",
            safety="numeric",
            fixable=known is not None,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put a Q/DQ pair on each finding's residual, in place; return how many pairs."""
    wanted = {name for finding in findings for name in finding.tensors}
    taken = editing.names(model)
    count = 0
    for add, residual in list(_residuals(model)):
        known = _quantizer(residual)
        if known is not None and reading.name(residual) in wanted:
            prefix = f"{reading.name(residual)}_residual"
            parameters = pairs.parameters_of(model, known, prefix, taken)
            pairs.insert(model, add, residual, parameters, taken, prefix=prefix)
            count += 1
    return count


def _residuals(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Yield each Conv+Add whose sum is quantized, with its residual input where that is float."""
    int8 = wanted_int8(model)
    for node in model.graph:
        if node.op_type != "Add" or id(_activated(node.outputs[0])) not in int8:
            continue
        inputs = [value for value in node.inputs if value is not None and not reading.is_constant(value)]
        fused = next((value for value in inputs if _fuses(value)), None)
        if len(inputs) != 2 or fused is None or _broadcasts(*inputs):
            continue
        residual = inputs[1] if inputs[0] is fused else inputs[0]
        if not _dequantized(residual):
            yield node, residual


def _fuses(value: ir.Value) -> bool:
    """Tell whether `value` is an int8 Conv's result, read once on its way (through BN and activation) to here."""
    uses = 1
    while len(value.uses()) == uses and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "Conv":
            return _dequantized(node.inputs[0]) and _dequantized(node.inputs[1])
        before = _before(node)
        if before is None:
            return False
        value, uses = before, 2 if node.op_type == "Mul" else 1
    return False


def _before(node: ir.Node) -> ir.Value | None:
    """Return what goes into a BatchNormalization or an activation, SiLU (a Mul with its own Sigmoid) included."""
    if node.op_type in (*ACTIVATIONS, "BatchNormalization"):
        return node.inputs[0]
    for value, other in (node.inputs, node.inputs[::-1]) if node.op_type == "Mul" else ():
        gate = None if other is None else other.producer()
        if gate is not None and gate.op_type in ("Sigmoid", "HardSigmoid") and gate.inputs[0] is value:
            return value
    return None


def _activated(value: ir.Value) -> ir.Value:
    """Return `value` after the activation behind it, which fuses into the operator that writes it."""
    while True:
        after = {id(node): node for node in value.consumers() if _before(node) is value}
        silu = [node for node in after.values() if node.op_type == "Mul"]
        if len(value.uses()) != len(after) or len(after) != (2 if silu else 1) or value.is_graph_output():
            return value
        value = (silu or list(after.values()))[0].outputs[0]


def _quantizers(value: ir.Value) -> list[ir.Node]:
    """Return the quantizers that fuse into the writer of `value`: none when something else reads it in float."""
    found: list[ir.Node] = []
    reached, seen = [value], {id(value)}
    while reached:
        for node in reached.pop().consumers():
            if reading.is_quantize(node):
                found.append(node)
            elif joint_of(node) is not None:
                reached.extend(one for one in node.outputs if id(one) not in seen)
                seen.update(id(one) for one in node.outputs)
            elif node.op_type != "Add":
                return []
    return found


def _quantizer(residual: ir.Value) -> ir.Node | None:
    """Return the quantizer with the widest scale that reads `residual`, or None; looks through copies."""
    found = [node for node in residual.consumers() if is_member(node)]
    producer = residual.producer()
    while producer is not None and producer.op_type in ("Cast", "Identity") and joint_of(producer) is not None:
        before = producer.inputs[0]
        assert before is not None
        found += [node for node in before.consumers() if is_member(node)]
        producer = before.producer()
    return max(found, key=_scale, default=None)


def _scale(quantizer: ir.Node) -> float:
    return reading.scalar_scale(quantizer) or 0.0


def _dequantized(value: ir.Value | None) -> bool:
    value = reading.source(value)
    return value is not None and reading.is_dequantize(value.producer())


def _broadcasts(one: ir.Value, other: ir.Value) -> bool:
    """Tell whether the Add is known to broadcast over more than the batch, which keeps it from fusing."""
    if one.shape is None or other.shape is None:
        return False
    pairs = zip(one.shape[1:], other.shape[1:], strict=False)
    return len(one.shape) != len(other.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
    )


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
