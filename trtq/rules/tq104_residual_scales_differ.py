"""TQ104 residual-scales-differ: a residual is quantized with another scale than the same tensor for its other readers.

## What it does

Finds tensors that a residual sum reads through a Q/DQ pair of one scale, and other quantizers read with another one:
the block's first convolution, most of all. One finding for a scale group. A group that a Concat joins too is TQ101's.
The scales of the sum's two inputs, and of the sum itself, need not be equal: the fused kernel takes each as it is.

## Why it matters

A residual is quantized so that the fused Conv+Add reads and writes int8. With the convolution's own scale the tensor is
written once, in int8, for both. With another one it is written in float and converted twice, or converted from one
scale to the other, and the pair has gained nothing: in a residual block compiled by TensorRT-RTX 1.7, a pair of equal
scale saves 10 % of the activation traffic (28.3 to 25.4 MB), one of another scale nothing.

## Fix

All quantizers of the group, and their DequantizeLinear nodes, take the widest scale. To choose otherwise, use
`trtq unify`.

## Fix safety

Numeric: the readers whose own scale was finer get coarser steps; the message says by how many bits. Nothing clips that
did not clip before.

Sources: TensorRT developer guide, "Explicit quantization", Q/DQ layer-placement recommendations ("quantize the residual
input"); pytorch-quantization, "Further optimization" of ResNet50; pass QuantizeConvWithResidualAdd in verbose build
logs of TensorRT 8.4; layer tables of TensorRT-RTX 1.7.1 with no pair, a pair of equal and of another scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import ScaleGroup
from trtq.rules import scale_groups
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ104", "residual-scales-differ"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    branch = Conv (x_dq, w)
    residual_q = QuantizeLinear (x, x_scale, zero)
    residual = DequantizeLinear (residual_q, x_scale, zero)
    sum = Add (branch, residual)
    y = Relu (sum)
}
"""
BAD = GOOD.replace("x_scale = {0.1}", "x_scale = {0.1}, float residual_scale = {0.12}").replace(
    """    residual_q = QuantizeLinear (x, x_scale, zero)
    residual = DequantizeLinear (residual_q, x_scale, zero)
""",
    """    residual_q = QuantizeLinear (x, residual_scale, zero)
    residual = DequantizeLinear (residual_q, residual_scale, zero)
""",
)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each scale group in which a residual has a scale of its own."""
    return scale_groups.disagreeing(model, CODE, NAME, _why)


def _why(group: ScaleGroup) -> str:
    return f"a residual sum and other operators read the same values, by {len(group.members)} quantizers,"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, scale_groups.unify)
