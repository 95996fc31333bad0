"""TQ303 zero-point-missing: a QuantizeLinear without a zero point, which ONNX takes as uint8 and TensorRT as int8.

## What it does

Finds QuantizeLinear nodes that have neither a zero point nor an output type. One finding for a tensor. A
DequantizeLinear without a zero point is fine: its integers have a type.

## Why it matters

ONNX's default is uint8: everything negative is cut off, and the range reaches to 255 steps. TensorRT builds int8, from
-128 to 127 steps, without a warning. ONNX Runtime and the engine then compute different numbers, and whoever wrote the
file meant one of them.

## Fix

A zero point of zero, int8, where that changes no number in ONNX Runtime: weights that take only 0 to 127 steps. For
everything else the file does not say what was meant. If int8, add a zero point of int8; if uint8, one of uint8, which
TQ302 then mends.

## Fix safety

Lossless where it is applied. Everything else needs review.

Sources: ONNX QuantizeLinear, "default is uint8"; NvInfer.h, IQuantizeLayer (zero point optional); a file without zero
points, built by TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import INT8_HIGHEST, Edits, Parameters, Region, by_tensor, codes, fits, parameters, regions

CODE, NAME = "TQ303", "zero-point-missing"

GOOD = """
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
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float w_scale = {0.01}, float[2,2,1,1] w = {0.5, 0.25, 0.0, 0.1}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w_q = QuantizeLinear (w, w_scale)
    w_dq = DequantizeLinear (w_q, w_scale)
    y = Conv (x_dq, w_dq)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor that is quantized without a zero point and without a type."""
    for tensor, found in by_tensor(_untold(model)).items():
        mends = all(_stays(region) for region in found)
        remedy = (
            "its integers fit int8 too, so the fix adds a zero point of int8"
            if mends
            else "say which was meant: add a zero point of zero, int8 or uint8"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': quantized without a zero point, which is uint8 in ONNX and int8 in TensorRT;"
            f" {remedy}",
            safety="lossless" if mends else "needs review",
            fixable=mends,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Add a zero point of int8 where no number changes, in place; return how many tensors were mended."""
    wanted = {name for finding in findings for name in finding.tensors}
    chosen = [found for name, found in by_tensor(_untold(model)).items() if name in wanted and all(map(_stays, found))]
    with Edits(model) as edits:
        for region in (region for found in chosen for region in found):
            old = region.parameters
            assert old is not None
            zero_point = np.zeros(old.scale.shape, np.int8)
            edits.parameters(region, Parameters(old.scale, zero_point, zero_point.dtype, old.axis))
    return len(chosen)


def _untold(model: ir.Model) -> Iterator[Region]:
    if not any(_is_untold(parameters(node)) for node in reading.nodes(model) if node.op_type == "QuantizeLinear"):
        return
    for region in regions(model):
        if any(_is_untold(parameters(node)) for node in region.nodes):
            yield region


def _is_untold(found: Parameters | None) -> bool:
    return found is not None and not found.told


def _stays(region: Region) -> bool:
    """Tell whether the region holds a constant whose integers are the same in uint8 and int8."""
    found = region.parameters
    values = reading.constant(region.constant)
    if region.obstacle or found is None or values is None or not fits(values, found):
        return False
    return bool((codes(values, found) <= INT8_HIGHEST).all())


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
