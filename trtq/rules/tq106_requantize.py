"""TQ106 requantize: values are dequantized with one scale and quantized again with another.

## What it does

Finds scale groups in which a QuantizeLinear reads what a DequantizeLinear of another scale wrote, back to back or
through operators that only pass values on: two pairs in a row, or pairs on both sides of a max pool. One finding for a
group. A group that a Concat joins too is TQ101's; two pairs of one scale are TQ211's.

## Why it matters

Pairs of equal scale cancel, and the operator between them runs on the integers. With two scales the integers of one
have to become those of the other: a kernel that reads and writes the whole tensor and calculates nothing, and a second
rounding of values that are rounded already. An SPPCSPC block with its own scale on every input of its Concat has three
such kernels in TensorRT-RTX 1.7, with one scale none.

## Fix

All quantizers of the group, and their DequantizeLinear nodes, take the widest scale. Two pairs in a row are then one
too many, which is TQ211's.

## Fix safety

Numeric: values whose own scale was finer are rounded in coarser steps, once instead of twice; the message says by how
many bits. Nothing clips that did not clip before.

Sources: ModelOpt, concat elimination (a DequantizeLinear and a QuantizeLinear vanish when their scales are equal, and
leave a requantization when they are not); TensorRT developer guide, "Explicit quantization"; layer tables of
TensorRT-RTX 1.7.1 for SPPCSPC.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import ScaleGroup
from trtq.rules import scale_groups
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ106", "requantize"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x_dq)
    pooled_q = QuantizeLinear (pooled, x_scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (pooled_dq, w)
}
"""
BAD = GOOD.replace("x_scale = {0.1}", "x_scale = {0.1}, float pooled_scale = {0.09}").replace(
    """    pooled_q = QuantizeLinear (pooled, x_scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, x_scale, zero)
""",
    """    pooled_q = QuantizeLinear (pooled, pooled_scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, pooled_scale, zero)
""",
)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each scale group in which dequantized values get another scale."""
    return scale_groups.disagreeing(model, CODE, NAME, _why)


def _why(group: ScaleGroup) -> str:
    through = f" through {scale_groups.listed(group.joined_by)}" if group.joined_by else ""
    return f"dequantized and quantized again{through}, but"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, scale_groups.unify)
