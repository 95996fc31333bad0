"""TQ312 per-channel-conv-transpose: the weight of a ConvTranspose has one scale a channel.

## What it does

Finds weights of ConvTranspose whose Q/DQ has several scales, along whatever axis. One finding for a weight.

## Why it matters

Which axis TensorRT takes for a ConvTranspose is not settled: its weights are [in, out, ...], NVIDIA's ModelOpt uses
axis 1, and a TensorRT engineer names axis 0. Before TensorRT 8.5 such a layer fails with "could not find any
implementation"; grouped ones were mended only by 10.9. One scale for the weight works everywhere.

## Fix

One scale for the whole weight, the widest of its channels; stored integers are rounded again.

## Fix safety

Numeric: channels with a finer scale are rounded in coarser steps. Where your TensorRT is known to take the axis, leave
the rule out and keep the finer scales.

Sources: NVIDIA/TensorRT issues 1694, 2280, 1934, 3412; nvidia-modelopt, `ort_utils.py`. TensorRT-RTX 1.7 runs a
ConvTranspose in float with either axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.clean import quantize
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Edits, Parameters, fits, regions
from trtq.rules.weights import Weight, dequantized, weights

CODE, NAME = "TQ312", "per-channel-conv-transpose"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.02}, int8 zero = {0}, int8[2,2,1,1] w_q = {5, 20, 15, 40}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = ConvTranspose (x_dq, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.01, 0.02}, int8[2] zero = {0, 0},
 int8[2,2,1,1] w_q = {10, 20, 30, 40}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w = DequantizeLinear <axis = 1> (w_q, w_scale, zero)
    y = ConvTranspose (x_dq, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each weight of a ConvTranspose that has several scales."""
    for weight in _per_channel(model):
        scale, fixable = weight.parameters.scale, _mends(weight)
        remedy = "give the weight one scale"
        if fixable:
            bits = math.log2(float(scale.max()) / float(scale.min()))
            remedy = f"the fix gives the weight the widest, up to {bits:.2f} bits coarser"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(weight.name,),
            removes=(),
            message=f"tensor '{weight.name}': the weight of a ConvTranspose with {scale.size} scales, which not every"
            f" TensorRT takes; {remedy}",
            safety="numeric" if fixable else "needs review",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give the findings' weights one scale, in place; return how many changed."""
    wanted = {name for finding in findings for name in finding.tensors}
    mended: set[str] = set()
    with Edits(model) as edits:
        for weight in list(_per_channel(model)):
            if weight.name not in wanted or not _mends(weight):
                continue
            mended.add(weight.name)
            values, stored, own = dequantized(weight), reading.constant(weight.value), weight.parameters
            assert values is not None and stored is not None
            scale = np.asarray(own.scale.max(), own.scale.dtype)
            if stored.dtype.kind in "iu":
                edits.data(weight.region, quantize(values, scale, 0))
            edits.parameters(weight.region, Parameters(scale, np.asarray(0, np.int8), own.dtype, own.axis))
    return len(mended)


def _per_channel(model: ir.Model) -> Iterator[Weight]:
    if not any(node.op_type == "ConvTranspose" for node in reading.nodes(model)):
        return
    for weight in weights(regions(model)):
        if weight.op == "ConvTranspose" and weight.parameters.scale.size > 1:
            yield weight


def _mends(weight: Weight) -> bool:
    values, own = reading.constant(weight.value), weight.parameters
    positive = all(map(reading.is_positive, map(float, own.scale.reshape(-1))))
    return values is not None and fits(values, own) and own.symmetric_int8 and positive


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
