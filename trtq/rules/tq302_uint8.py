"""TQ302 uint8: a tensor is quantized to uint8, which TensorRT builds as int8.

## What it does

Finds Q/DQ whose zero point, or whose stored integers, are uint8. One finding for a tensor. A zero point other than zero
is TQ301's as well.

## Why it matters

TensorRT has no uint8 arithmetic for Q/DQ. With a zero point of zero its parser only warns ("Defaulting to INT8") and
builds: everything above 127 steps is cut off, so the upper half of the range is lost and the numbers are wrong. Nothing
fails, and ONNX Runtime still runs the file right.

## Fix

The same range in symmetric int8: a zero point of zero makes the scale 255 / 127 times as large, other zero points as in
TQ301. Stored integers are exact where they fit into int8, else rounded to the nearest. uint8 also cuts off what is
negative, and producers drop a Relu in front of the quantizer for that: the fix puts one back, unless what writes the
tensor is known never to be negative.

## Fix safety

Numeric: steps of an unsigned range get twice as wide, one bit less. To keep all 8 bits of a signed range, quantize
again with symmetric int8.

Sources: TensorRT developer guide, "Explicit quantization" (INT8, FP8, INT4 and FP4 only); the parser's warning in
TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trtq.rules import symmetric
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Parameters

CODE, NAME = "TQ302", "uint8"

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
<float x_scale = {0.05}, uint8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (x_q, x_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor that is quantized to uint8 by its zero point or its stored integers."""
    return symmetric.findings(model, CODE, NAME, _wrong, _why)


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give each finding's tensor the same range in symmetric int8, in place; return how many changed."""
    return symmetric.convert(model, findings, _wrong)


def _wrong(found: Parameters) -> bool:
    return found.dtype == np.uint8 and found.told


def _why(found: Parameters) -> str:
    if found.zero_point.any():
        return "uint8, which TensorRT does not take"
    return "uint8, which TensorRT builds as int8: all above half of the range is cut off"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
