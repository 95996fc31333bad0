"""TQ307 wrong-axis: the scales of a weight are not those of its output channels.

## What it does

Finds weights of Conv, Gemm and MatMul with several scales along another axis than that of the output channels, and any
constant with Q/DQ whose number of scales is not its size along the axis. The usual cause: the attribute `axis` is left
out, and its default is 1, while a convolution's output channels are axis 0. One finding for a weight.

## Why it matters

An integer convolution sums over everything but the output channels before it scales, so no other axis can be int8:
TensorRT refuses the file or runs the operator in float. Where the number of scales does not fit the axis, the file has
no meaning, and ONNX Runtime refuses it too.

## Fix

Where the number of scales fits the output channels alone, `axis` becomes theirs. Where the file is valid, but the axis
another, each output channel gets a scale of its own from its weights (largest / 127), and stored integers are rounded
again.

## Fix safety

Numeric: weights are rounded by other scales. Correcting the axis of a file that had no meaning needs no rounding, but
compare its outputs with the float network's.

Sources: TensorRT developer guide, "Explicit quantization"; NvInfer.h, IDequantizeLayer ("K (dimension 0)" for a
convolution); ONNX QuantizeLinear, attribute `axis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.clean import quantize
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Edits, Parameters, Region, fits, pairs, parameters, regions
from trtq.rules.weights import Weight, channel_scales, dequantized, output_axes, weights

CODE, NAME = "TQ307", "wrong-axis"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.01, 0.02}, int8[2] zero = {0, 0},
 int8[2,2,1,1] w_q = {10, 20, 30, 40}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w = DequantizeLinear <axis = 0> (w_q, w_scale, zero)
    y = Conv (x_dq, w)
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
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each constant whose scales do not fit, or are not those of its output channels."""
    for region, weight in _wrong(model):
        name, own, value = region.tensors[0], region.parameters, region.constant
        assert own is not None and value is not None and value.shape is not None
        fixable = weight is not None and _mends(weight)
        if weight is not None and fits_shape(value, own):
            fault = f"its {own.scale.size} scales lie along axis {own.axis}, its output channels along {weight.axis}"
        else:
            shape = ", ".join(map(str, value.shape))
            fault = f"its {own.scale.size} scales do not fit axis {own.axis} of its shape [{shape}]"
        remedy = (
            f"the fix gives one to each output channel, along axis {weight.axis}"
            if fixable and weight
            else ("export it again with one scale for each output channel")
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': {fault}; {remedy}",
            safety="numeric" if fixable else "needs review",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give the output channels of the findings' weights the scales, in place; return how many weights changed."""
    wanted = {name for finding in findings for name in finding.tensors}
    mended: set[str] = set()
    with Edits(model) as edits:
        for region, weight in list(_wrong(model)):
            if weight is None or region.tensors[0] not in wanted or not _mends(weight):
                continue
            mended.add(region.tensors[0])
            _mend(edits, weight)
    return len(mended)


def fits_shape(value: ir.Value, own: Parameters) -> bool:
    """Tell whether a constant has one scale, or as many as elements along the axis, without reading it."""
    if own.scale.size == 1 or value.shape is None:
        return True
    rank = len(value.shape)
    return -rank <= own.axis < rank and value.shape[own.axis] == own.scale.size


def _wrong(model: ir.Model) -> Iterator[tuple[Region, Weight | None]]:
    """Yield each constant's region with wrong scales, and the weight that it is, if it is one."""
    if not any(_may_be_wrong(node) for node in pairs(model)):
        return
    found = [region for region in regions(model) if region.constant is not None and _is_per_channel(region.nodes[0])]
    known = {id(weight.region): weight for weight in weights(found)}
    for region in found:
        value, own, weight = region.constant, region.parameters, known.get(id(region))
        if value is None or own is None or value.shape is None or own.scale.ndim > 1:
            continue  # several dimensions of scales: blocks, which have a rule of their own in ONNX
        away = weight is not None and weight.op != "ConvTranspose" and own.axis % len(value.shape) != weight.axis
        if away or not fits_shape(value, own):
            yield region, weight


def _mends(weight: Weight) -> bool:
    """Tell whether the weight can get one scale for each output channel."""
    own, shape = weight.parameters, weight.value.shape
    assert shape is not None
    if not own.symmetric_int8 or not np.isfinite(own.scale).all():
        return False
    return fits_shape(weight.value, own) or own.scale.size == shape[weight.axis]


def _mend(edits: Edits, weight: Weight) -> None:
    own = weight.parameters
    if not fits_shape(weight.value, own):
        edits.parameters(weight.region, Parameters(own.scale, own.zero_point, own.dtype, weight.axis))
        return
    values, stored = dequantized(weight), reading.constant(weight.value)
    assert values is not None and stored is not None and fits(stored, own)
    scale = channel_scales(values, weight.axis, own.scale.dtype)
    if stored.dtype.kind in "iu":
        edits.data(weight.region, quantize(values, scale, weight.axis))
    edits.parameters(weight.region, Parameters(scale, np.zeros(scale.shape, np.int8), own.dtype, weight.axis))


def _may_be_wrong(node: ir.Node) -> bool:
    """Tell whether a Q or DQ node has several scales that may lie along a wrong axis: the cheap half of the check."""
    value = reading.quantized_tensor(node)
    if not _is_per_channel(node) or not reading.is_constant(value):
        return False
    own = parameters(node)
    if value is None or value.shape is None or own is None or not fits_shape(value, own):
        return True
    return any(axis % len(value.shape) != own.axis % len(value.shape) for axis in output_axes(node))


def _is_per_channel(node: ir.Node) -> bool:
    scale = reading.scale(node)
    return scale is not None and scale.size > 1


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
