"""TQ306 per-channel-activation: an activation is quantized with one scale a channel.

## What it does

Finds Q/DQ on activations that have more than one scale. A scale of one element is per tensor, whatever its axis says.
One finding for a tensor.

## Why it matters

Only weights may have one scale a channel: an integer convolution sums over its input channels before it scales.
TensorRT-RTX builds such a file without a word and runs the convolution in float; TensorRT 8.6 stops with an assertion
on the number of scales.

## Fix

One scale for the whole tensor, the widest of its channels, so that nothing clips that did not clip before.

## Fix safety

Numeric: the channels with a finer scale are rounded in coarser steps. A new calibration per tensor may choose better.

Sources: TensorRT developer guide, "Explicit quantization" ("per-tensor for activations"); NVIDIA/TensorRT issue 4008
(`numScales == mGlobRefs.scale.count()`); such a file built by TensorRT-RTX 1.7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Edits, Parameters, Region, by_tensor, pairs, regions

CODE, NAME = "TQ306", "per-channel-activation"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.2}, int8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (x_q, x_scale, zero)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2] x_scale = {0.1, 0.2}, int8[2] zero = {0, 0}>
{
    x_q = QuantizeLinear <axis = 1> (x, x_scale, zero)
    y = DequantizeLinear <axis = 1> (x_q, x_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each activation with several scales."""
    for tensor, found in by_tensor(_per_channel(model)).items():
        obstacle = next(filter(None, map(_obstacle, found)), None)
        own = found[0].parameters
        assert own is not None
        remedy = f"the fix cannot: {obstacle}"
        if obstacle is None:
            bits = math.log2(float(own.scale.max()) / float(own.scale.min()))
            remedy = f"the fix gives the tensor the widest, up to {bits:.2f} bits coarser"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': an activation with {own.scale.size} scales, and TensorRT takes one;"
            f" what reads it runs in float; {remedy}",
            safety="needs review" if obstacle else "numeric",
            fixable=obstacle is None,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give each finding's tensor the widest of its scales, in place; return how many tensors changed."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = by_tensor(_per_channel(model))
    chosen = [same for name, same in found.items() if name in wanted and not any(map(_obstacle, same))]
    with Edits(model) as edits:
        for region in (region for same in chosen for region in same):
            old = region.parameters
            assert old is not None
            scale = np.asarray(old.scale.max(), old.scale.dtype)
            edits.parameters(region, Parameters(scale, np.asarray(0, np.int8), np.dtype(np.int8), old.axis))
    return len(chosen)


def _per_channel(model: ir.Model) -> Iterator[Region]:
    if not any(_has_several(node) for node in pairs(model) if reading.is_activation(node)):
        return
    for region in regions(model):
        if region.constant is None and region.parameters is not None and any(map(_has_several, region.nodes)):
            yield region


def _has_several(node: ir.Node) -> bool:
    scale = reading.scale(node)
    return scale is not None and scale.size > 1


def _obstacle(region: Region) -> str | None:
    own = region.parameters
    if region.obstacle or own is None:
        return region.obstacle
    if not own.symmetric_int8:
        return "it is not symmetric int8"
    if not all(map(reading.is_positive, map(float, own.scale.reshape(-1)))):
        return "one of the scales is not a positive number"
    return None


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
