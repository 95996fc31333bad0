"""TQ301 zero-point-not-zero: a tensor is quantized with a zero point other than zero.

## What it does

Finds Q/DQ whose constant zero point is not zero (in any channel). One finding for a tensor.

## Why it matters

TensorRT quantizes symmetrically: a zero point must be a constant of zeros. The parsers of TensorRT and TensorRT-RTX
refuse anything else, so no engine is built. ONNX Runtime's and PT2E's defaults write such files.

## Fix

The same range in symmetric int8: for 8-bit integers q with zero point z, the new scale is the old one times
max((q_max - z) / 127, (z - q_min) / 128), which reaches as far as before on both sides of zero. Weights are stored
again, exactly where the integers less their zero point fit into int8, else rounded to the nearest. Quantizer and
DequantizeLinear change together, through max pools, Concats and the like between them.

Where the range starts at zero, the quantizer also cuts off what is negative, and producers drop a Relu in front of it
for that. Symmetric int8 would let negative values through, so the fix puts a Relu back, unless what writes the tensor
is known never to be negative.

## Fix safety

Numeric: steps get up to twice as wide (a range on one side of zero loses one bit), and a range that was cut on its
narrow side is not cut there any more. To keep all 8 bits, quantize again with symmetric int8: `ActivationSymmetric:
True` and `QuantType.QInt8` in onnxruntime, `is_symmetric` in PT2E. Integers that leave the network, or that another
operator works on, cannot be changed.

Sources: NvInfer.h, IQuantizeLayer, TensorRT 8.5 to 11.1; TensorRT developer guide, "Explicit quantization";
onnxruntime.quantization, QDQRemovableActivation. Tried: files of three producers build on TensorRT-RTX 1.7 after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.rules import symmetric
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Parameters

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
    return symmetric.findings(model, CODE, NAME, _wrong, _why)


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give each finding's tensor the same range in symmetric int8, in place; return how many changed."""
    return symmetric.convert(model, findings, _wrong)


def _wrong(found: Parameters) -> bool:
    return bool(found.zero_point.any())


def _why(found: Parameters) -> str:
    low, high = found.zero_point.min(), found.zero_point.max()
    shown = f"zero point {low}" if low == high else f"zero points {low} to {high}"
    return f"{shown} ({found.dtype}), and TensorRT refuses any but zero"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
