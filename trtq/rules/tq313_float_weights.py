"""TQ313 float-weights: quantized weights are stored as float, four times as large as they need to be.

## What it does

Finds float constants followed by QuantizeLinear and DequantizeLinear in symmetric int8. One finding for the file. It is
reported only where the target is known (`--target`) and reads the other form.

## Why it matters

Such a weight is quantized again at every load, and the file holds four bytes for each that is used. TensorRT from 10,
TensorRT-RTX and ONNX Runtime read int8 initializers followed by a DequantizeLinear. TensorRT 8 does not: for it, and
for files that may go anywhere, the float form is the right one.

## Fix

The integers are computed now and stored; the QuantizeLinear goes.

## Fix safety

Lossless: the same numbers. The float weights are gone from the file, so keep the checkpoint.

Sources: TensorRT developer guide, "Explicit quantization" (weights as int8 initializers from TensorRT 10); ONNX
QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq import qdq
from trtq.qdq import reading
from trtq.rules.finding import FROM_TRT10, Context, Finding, Rule
from trtq.rules.regions import parameters
from trtq.rules.scale_groups import listed
from trtq.rules.tq307_wrong_axis import fits_shape

CODE, NAME = "TQ313", "float-weights"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {50, 25, 0, 10}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, float[2,2,1,1] w = {0.5, 0.25, 0.0, 0.1}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w_q = QuantizeLinear (w, w_scale, zero)
    w_dq = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for all weights that are stored as float, where the target is known to read int8."""
    found = list(_stored_as_float(model)) if context.target in FROM_TRT10 else []
    if not found:
        return
    names = tuple(dict.fromkeys(reading.name(value) for value in found))
    stored = [one.const_value for one in {id(value): value for value in map(reading.source, found)}.values() if one]
    elements = sum(tensor.size for tensor in stored if tensor is not None)
    plural = "s are" if len(names) > 1 else " is"
    yield Finding(
        code=CODE,
        name=NAME,
        tensors=names,
        removes=(),
        message=f"tensor{'s' if len(names) > 1 else ''} {listed(names)}: quantized weight{plural} stored as float,"
        f" {elements:,} elements of a byte in four or more; the fix stores int8",
        safety="lossless",
        fixable=True,
    )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Store all such weights as int8, in place; return 1 where there were any."""
    if not any(True for _ in _stored_as_float(model)):
        return 0
    return int(qdq.store_int8_weights(model) > 0)


def _stored_as_float(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the float constants that a symmetric int8 QuantizeLinear reads whose scales fit them."""
    for node in reading.nodes(model):
        if not reading.is_quantize(node) or reading.is_activation(node):
            continue
        value, own = reading.quantized_tensor(node), parameters(node)
        if value is not None and own is not None and own.symmetric_int8 and fits_shape(value, own):
            yield value


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", FROM_TRT10, check, fix)
