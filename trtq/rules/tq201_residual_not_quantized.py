"""TQ201 residual-not-quantized: a quantized Conv+Add reads its residual input in float.

## What it does

Finds Adds of two activations where one comes from an int8 Conv (through BatchNormalization, an activation and Dropout
at most, each read once), the sum is quantized by its consumers or would be once they are mended too (the next residual,
a pool that TQ208 finds), and the other input, the residual, has no Q/DQ pair. When both inputs come from such a Conv,
the first is the one that fuses and the other is the residual.

## Why it matters

The fused Conv+Add kernel writes the precision of its residual input: with a float residual it writes float, and the
quantizer behind it stays as a kernel of its own (pass `QuantizeConvWithResidualAdd` needs both inputs quantized).
ResNet18 on an A100 with batch 32: 1130 queries a second without, 1823 with quantized residuals, 1155 in FP16.

## Fix

A Q/DQ pair on the residual input, with the scale of a quantizer that reads the same tensor already (the widest one of
its scale group). Where nothing quantizes that tensor, its range is not in the file: `--calibration IMAGES` collects it,
and the pair takes the largest value / 127. No scale is invented.

## Fix safety

Numeric: the residual is now rounded too, in the steps that another consumer already uses or in those of its own range.

Sources: TensorRT developer guide, "Explicit quantization", Q/DQ layer-placement recommendations ("quantize the residual
input"); NVIDIA tensorflow-quantization, ResNet case: every Add input except the one from Conv(-BN-activation) with a
single consumer; pytorch-quantization, "Further optimization" of ResNet50; layer tables of the ResNet18 engines.
TensorRT-RTX 1.7 saves 10 % of a block's traffic with an equal scale and nothing with another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules import missing_pairs
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.missing_pairs import Place
from trtq.rules.outlook import Outlook, Sum, dequantized, outlook_of

CODE, NAME = "TQ201", "residual-not-quantized"

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
    active_dq = DequantizeLinear (active_q, y_scale, zero)
    y = Conv (active_dq, w)
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
    active_dq = DequantizeLinear (active_q, y_scale, zero)
    y = Conv (active_dq, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each float residual input of a quantized Conv+Add."""
    outlook = outlook_of(model)
    found = list(_float(outlook))
    ranges = missing_pairs.ranges_of(model, [one.residual for one in found], context)
    for one in found:
        name, own = reading.name(one.residual), ranges[id(one.residual)]
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=tuple(dict.fromkeys((*outlook.freed(one.residual), *outlook.freed(one.result)))),
            message=f"tensor '{name}': the float residual of the quantized sum '{reading.name(one.add.outputs[0])}', so"
            f" TensorRT writes the sum in float and converts it; {own.remedy}",
            safety="numeric",
            fixable=own.known,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put a Q/DQ pair on each finding's residual, in place; return how many pairs."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = (one for one in _float(outlook_of(model)) if reading.name(one.residual) in wanted)
    return missing_pairs.mend(model, [Place(one.add, one.residual) for one in found], context, "residual")


def _float(outlook: Outlook) -> Iterator[Sum]:
    """Yield each Conv+Add whose sum is quantized, or will be, and whose residual is float."""
    for one in outlook.sums.values():
        if outlook.wants(one.result) and not dequantized(one.residual):
            yield one


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
