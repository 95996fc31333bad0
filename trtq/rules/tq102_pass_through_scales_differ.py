"""TQ102 pass-through-scales-differ: an operator that only passes values on has different scales on its two sides.

## What it does

Finds scale groups whose tensors are joined by max pooling, nearest Resize, Reshape, Flatten, Squeeze, Unsqueeze,
Transpose, Slice, Split, zero Pad and the like, but by no Concat (that is TQ101), and whose scales are not all equal.
One finding for a group. Where the operator already reads what a DequantizeLinear wrote, it is TQ106.

## Why it matters

Such an operator commutes with rounding, so TensorRT moves the quantizer behind it in front of it (pass
`VanillaSwapWithFollowingQ`), where it meets the quantizer of the tensor's other consumers. Equal scales merge into one;
different ones quantize the same tensor twice, and the convolution before it has to write float.

## Fix

Every quantizer of the group, and its DequantizeLinear, takes the widest scale. To choose otherwise, use `trtq unify`.

## Fix safety

Numeric: the tensors whose own scale was finer are rounded in coarser steps; the message says by how many bits. Nothing
clips that did not clip before.

Sources: TensorRT developer guide, "Explicit quantization" (max pooling is its proven case); pass names from verbose
build logs of TensorRT 8.4 and 8.5. Operators that no published log shows are marked "likely".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import ScaleGroup
from trtq.rules import scale_groups
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ102", "pass-through-scales-differ"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y, float[1,2,4,4] z)
<float x_scale = {0.1}, int8 zero = {0}>
{
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    pooled_q = QuantizeLinear (pooled, x_scale, zero)
    y = DequantizeLinear (pooled_q, x_scale, zero)
    x_q = QuantizeLinear (x, x_scale, zero)
    z = DequantizeLinear (x_q, x_scale, zero)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y, float[1,2,4,4] z)
<float x_scale = {0.1}, float pooled_scale = {0.09}, int8 zero = {0}>
{
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    pooled_q = QuantizeLinear (pooled, pooled_scale, zero)
    y = DequantizeLinear (pooled_q, pooled_scale, zero)
    x_q = QuantizeLinear (x, x_scale, zero)
    z = DequantizeLinear (x_q, x_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each scale group joined by other operators than Concat that has several scales."""
    return scale_groups.disagreeing(model, CODE, NAME, _why)


def _why(group: ScaleGroup) -> str:
    return f"the same values, passed on by {scale_groups.listed(group.joined_by)}, but"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, scale_groups.unify)
