"""TQ403 integer-operator: the file quantizes with integer operators instead of Q/DQ pairs.

## What it does

Finds QLinearConv and its kin, ConvInteger, MatMulInteger, DynamicQuantizeLinear and ONNX Runtime's own integer
operators. One finding for each type of operator.

## Why it matters

TensorRT reads Q/DQ pairs around float operators and nothing else: its parser refuses these, so no engine is built.
They come from onnxruntime.quantization with `quant_format=QOperator` or `quantize_dynamic`, and from a file that ONNX
Runtime wrote after its own optimizations.

## Fix

None: quantize the float network again, statically, with `quant_format=QuantFormat.QDQ`, or use `trtq quantize`.

## Fix safety

Needs review.

Sources: onnx-tensorrt, docs/operators.md (QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger and
DynamicQuantizeLinear: not supported); the parser of TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ403", "integer-operator"
INTEGER = (
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
    "QGemm",
    "QAttention",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
)

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
<float[4,4] scale = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
    levels, level_scale, level_zero = DynamicQuantizeLinear (x)
    steps = Cast <to = 1> (levels)
    y = MatMul (steps, scale)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each type of integer operator in the file."""
    found: dict[str, list[str]] = {}
    for node in reading.nodes(model):
        if node.op_type.startswith("QLinear") or node.op_type in INTEGER:
            found.setdefault(node.op_type, []).append(reading.name(node.outputs[0]))
    for operator, tensors in found.items():
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=tuple(tensors),
            removes=(),
            message=f"tensor{'s' if len(tensors) > 1 else ''} {listed(tensors)}: written by {operator}, and TensorRT"
            " takes Q/DQ pairs around float operators only; quantize again in QDQ format",
            safety="needs review",
            fixable=False,
        )


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
