"""TQ103 consumer-scales-differ: the consumers of one tensor quantize it with different scales.

## What it does

Finds tensors that several quantizers read with different scales. Where a Concat or a passing operator joins them too,
TQ101 or TQ102 reports the whole group instead; where one of them quantizes a residual, TQ104.

## Why it matters

Quantizers of one tensor merge when their scales are equal (pass `HorizontalMergeQNodes`), and the merged one fuses into
the operator that writes the tensor. With different scales neither happens: the tensor is written in float and converted
once for each scale.

## Fix

All quantizers of the tensor, and their DequantizeLinear nodes, take the widest scale.

## Fix safety

Numeric: consumers whose own scale was finer get coarser steps; the message says by how many bits. Nothing clips that
did not clip before.

Sources: TensorRT developer guide, "Explicit quantization"; pass names from verbose build logs of TensorRT 8.4 and 8.5.
TensorRT-RTX 1.7 writes such a tensor once for each scale, and once when the scales are equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import ScaleGroup
from trtq.rules import scale_groups
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ103", "consumer-scales-differ"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
<float x_scale = {0.1}, int8 zero = {0}>
{
    first_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (first_q, x_scale, zero)
    second_q = QuantizeLinear (x, x_scale, zero)
    z = DequantizeLinear (second_q, x_scale, zero)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
<float first_scale = {0.1}, float second_scale = {0.12}, int8 zero = {0}>
{
    first_q = QuantizeLinear (x, first_scale, zero)
    y = DequantizeLinear (first_q, first_scale, zero)
    second_q = QuantizeLinear (x, second_scale, zero)
    z = DequantizeLinear (second_q, second_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor that is quantized with several scales by its consumers alone."""
    return scale_groups.disagreeing(model, CODE, NAME, _why)


def _why(group: ScaleGroup) -> str:
    return f"{len(group.members)} quantizers,"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, scale_groups.unify)
