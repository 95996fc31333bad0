"""TQ305 dead-channel: every weight of a channel rounds to zero, although none of them needs to.

## What it does

Finds float weights with a QuantizeLinear whose scale is so coarse for an output channel that all its weights become
zero, while the channel is not zero. One finding for a weight. Channels that are zero in the float network are fine.

## Why it matters

The channel is computed for nothing and its output is a constant: the network has lost a feature. It happens where one
scale serves a whole weight whose channels differ much, as after folding BatchNormalization into a depthwise
convolution, and where a channel's scale comes from somewhere else than its weights.

## Fix

One scale for each output channel, the channel's largest weight / 127. The weights are in the file, so nothing is
invented: TensorRT takes one scale a channel for weights at no cost.

## Fix safety

Numeric: the weights get nearer to the float ones in every channel that becomes finer.

Sources: TensorRT developer guide, "Explicit quantization" ("per-tensor for activations, per-channel for weights").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import INT8_HIGHEST, Edits, Parameters, fits, regions
from trtq.rules.weights import SMALLEST_SCALE, Weight, channel_maxima, channel_scales, described, weights

CODE, NAME = "TQ305", "dead-channel"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.004, 0.00001}, int8[2] zero = {0, 0},
 float[2,2,1,1] w = {0.5, 0.25, 0.001, -0.0005}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w_q = QuantizeLinear <axis = 0> (w, w_scale, zero)
    w_dq = DequantizeLinear <axis = 0> (w_q, w_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.004}, int8 zero = {0}, float[2,2,1,1] w = {0.5, 0.25, 0.001, -0.0005}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w_q = QuantizeLinear (w, w_scale, zero)
    w_dq = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each weight with channels that only their scale makes zero."""
    for weight, dead in _dying(model):
        shown = described(np.flatnonzero(dead), dead.size)
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(weight.name,),
            removes=(),
            message=f"tensor '{weight.name}': all weights of {shown} round to zero, though they are not zero;"
            " the fix gives each output channel a scale of its own, from its weights",
            safety="numeric",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give the weights of the findings one scale for each output channel, in place; return how many."""
    wanted = {name for finding in findings for name in finding.tensors}
    mended: set[str] = set()
    with Edits(model) as edits:
        for weight, _ in list(_dying(model)):
            values = reading.constant(weight.value)
            if weight.name not in wanted or values is None:
                continue
            scale = channel_scales(values, weight.axis, weight.parameters.scale.dtype)
            zero_point = np.zeros(scale.shape, np.int8)
            edits.parameters(weight.region, Parameters(scale, zero_point, zero_point.dtype, weight.axis))
            mended.add(weight.name)
    return len(mended)


def _dying(model: ir.Model) -> Iterator[tuple[Weight, npt.NDArray[np.bool_]]]:
    """Yield each float weight that loses channels, with a flag for each channel."""
    if not any(reading.is_quantize(node) and not reading.is_activation(node) for node in reading.nodes(model)):
        return
    for weight in weights(regions(model)):
        values, found = reading.constant(weight.value), weight.parameters
        if values is None or values.dtype.kind in "iu" or not found.symmetric_int8 or not fits(values, found):
            continue
        if weight.op == "ConvTranspose" or (found.scale.size > 1 and found.axis % values.ndim != weight.axis):
            continue  # TQ312 and TQ307 speak of those
        maxima, scale = channel_maxima(values, weight.axis), found.scale.astype(np.float64).reshape(-1)
        dead = (maxima >= INT8_HIGHEST * SMALLEST_SCALE) & np.isfinite(scale) & (maxima <= scale / 2)
        if dead.any():
            yield weight, dead


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
