"""TQ301 zero-point-not-zero: a tensor is quantized with a zero point other than zero.

## What it does

Finds Q/DQ whose constant zero point is not zero (in any channel). One finding for a tensor.

## Why it matters

TensorRT quantizes symmetrically: a zero point must be a constant of zeros. The parsers of TensorRT and TensorRT-RTX
refuse anything else, so no engine is built.

## Fix

Quantize again with symmetric int8 activations: `ActivationSymmetric: True` and `QuantType.QInt8` in onnxruntime,
`is_symmetric` in PT2E. A range that lies on one side of zero loses up to one bit that way.

## Fix safety

Needs review: the same range in symmetric int8 has other steps, and what that costs has to be measured.

Sources: NvInfer.h, IQuantizeLayer, TensorRT 8.5 to 11.1; TensorRT developer guide, "Explicit quantization".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ301", "zero-point-not-zero"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (x_q, x_scale, zero)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.05}, int8 x_zero = {-128}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    y = DequantizeLinear (x_q, x_scale, x_zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor that is quantized with a zero point other than zero."""
    reported: set[str] = set()
    for node in model.graph:
        if not (reading.is_quantize(node) or reading.is_dequantize(node)):
            continue
        zero_point, name = reading.zero_point(node), reading.name(reading.quantized_tensor(node))
        if zero_point is None or name in reported or not zero_point.any():
            continue
        reported.add(name)
        low, high = int(zero_point.min()), int(zero_point.max())
        shown = f"zero point {low}" if low == high else f"zero points {low} to {high}"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': {shown} ({zero_point.dtype}), and TensorRT refuses any but zero; quantize it"
            " again with symmetric int8",
            safety="needs review",
            fixable=False,
        )


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
