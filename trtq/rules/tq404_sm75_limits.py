"""TQ404 sm75-limits: what TensorRT-RTX does not do for Turing (SM75).

## What it does

With the target `rtx:sm75`, finds matrix products of float32 tensors (quantized ones among them), which it cannot
compile, and convolutions with Q/DQ, which it runs in float. One finding for each of the two.

## Why it matters

TensorRT-RTX stops a build for SM75 at a float32 matrix product. Q/DQ builds, but is emulated: the weights are
dequantized, every value is rounded, and nothing runs in int8, so the engine is slower than without Q/DQ. An engine for
several architectures that SM75 is among has the same graph on all of them. Classic TensorRT runs int8 on Turing.

## Fix

None: use the FP16 network for SM75, or leave SM75 out.

## Fix safety

Needs review.

Sources: builds of TensorRT-RTX 1.7 for SM75 (`check_turing_op_compatibility`) and their layer tables.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.dtypes import float_types
from trtq.rules.finding import Context, Finding, Rule
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ404", "sm75-limits"
TURING = "sm75"
PRODUCTS = ("Gemm", "MatMul", "Einsum")
CONVOLUTIONS = ("Conv", "ConvTranspose")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}>
{
    y = Conv (x, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[4,4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
    y = MatMul (x, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield what TensorRT-RTX does not do for SM75, where that is the target."""
    if context.sm != TURING:
        return
    types = float_types(model)
    products = [node for node in reading.nodes(model) if node.op_type in PRODUCTS and _is_float32(node, types)]
    if products:
        yield _finding(products, "a float32 matrix product, which TensorRT-RTX cannot compile for SM75")
    quantized = [node for node in reading.nodes(model) if node.op_type in CONVOLUTIONS and _is_quantized(node)]
    if quantized:
        yield _finding(quantized, "a convolution with Q/DQ, which TensorRT-RTX runs in float for SM75")


def _finding(nodes: list[ir.Node], what: str) -> Finding:
    tensors = tuple(reading.name(node.outputs[0]) for node in nodes)
    return Finding(
        code=CODE,
        name=NAME,
        tensors=tensors,
        removes=(),
        message=f"tensor{'s' if len(tensors) > 1 else ''} {listed(tensors)}: {what}; build the FP16 network for it",
        safety="needs review",
        fixable=False,
    )


def _is_float32(node: ir.Node, types: dict[int, ir.DataType]) -> bool:
    return any(types.get(id(one), one.dtype) is ir.DataType.FLOAT for one in node.inputs if one is not None)


def _is_quantized(node: ir.Node) -> bool:
    read = [reading.source(one) for one in node.inputs[:2]]
    return all(one is not None and reading.is_dequantize(one.producer()) for one in read)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", ("rtx",), check, None)
