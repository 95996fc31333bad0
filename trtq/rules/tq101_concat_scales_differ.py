"""TQ101 concat-scales-differ: the tensors that meet in a Concat are quantized with different scales.

## What it does

Finds scale groups that a Concat joins (nested and chained ones, and through pools, reshapes and the like) whose
quantizers do not all have the same scale. One finding for a group, however many tensors it holds.

## Why it matters

TensorRT moves the quantizer behind a Concat in front of it, to every input (pass `SplitQAcrossPrecedingFanIn`). An
input that another consumer has quantized with a different scale is then quantized twice, or requantized: a kernel of
its own for each edge, and the Concat is copied instead of written in place. With equal scales `HorizontalMergeQNodes`
leaves one quantizer. YOLOv7 on a Jetson Orin ran at 180 images a second before its scales were made equal and at 207
after.

## Fix

Every quantizer of the group, and its DequantizeLinear, takes the widest scale, so that nothing clips that did not clip
before. To choose otherwise, or to leave a group apart, use `trtq unify`.

## Fix safety

Numeric: the narrow branches are rounded in coarser steps; the message says by how many bits. It is not always a gain
either: where the Concat would run in float anyway, pulling the quantizer above it can cost time (NVIDIA/TensorRT issue
4366). Measure both.

Sources: TensorRT developer guide, "Explicit quantization", processing of Q/DQ networks; pass names from verbose build
logs of TensorRT 8.4 and 8.5; NVIDIA-AI-IOT/yolo_deepstream, "Guidance of QAT performance optimization".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import ScaleGroup
from trtq.rules import scale_groups
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ101", "concat-scales-differ"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] left, float[1,2,4,4] right) => (float[1,4,4,4] y, float[1,2,4,4] z)
<float joint_scale = {0.2}, int8 zero = {0}>
{
    joined = Concat <axis = 1> (left, right)
    joined_q = QuantizeLinear (joined, joint_scale, zero)
    y = DequantizeLinear (joined_q, joint_scale, zero)
    left_q = QuantizeLinear (left, joint_scale, zero)
    z = DequantizeLinear (left_q, joint_scale, zero)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] left, float[1,2,4,4] right) => (float[1,4,4,4] y, float[1,2,4,4] z)
<float joint_scale = {0.2}, float left_scale = {0.1}, int8 zero = {0}>
{
    joined = Concat <axis = 1> (left, right)
    joined_q = QuantizeLinear (joined, joint_scale, zero)
    y = DequantizeLinear (joined_q, joint_scale, zero)
    left_q = QuantizeLinear (left, left_scale, zero)
    z = DequantizeLinear (left_q, left_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each scale group that a Concat joins and that has several scales."""
    return scale_groups.disagreeing(model, CODE, NAME, _why)


def _why(group: ScaleGroup) -> str:
    return f"joined by {scale_groups.listed(group.joined_by)}, but"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, scale_groups.unify)
