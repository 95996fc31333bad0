"""TQ402 unsupported-operator: the target's own parser refuses a node.

## What it does

Asks the parser of TensorRT-RTX, where that is installed and the target may be it, what it refuses, and reports each
refused node by the tensor that it writes, with the parser's reason. Without a parser there is nothing to report. One
finding for a tensor. Asking takes longer than all other rules together, so a file of nothing but operators that every
TensorRT takes is asked about for the target `rtx` alone.

## Why it matters

No engine is built from such a file. Two-stage detectors (NonMaxSuppression, RoiAlign, NonZero) and custom domains are
the usual cases: what comes behind belongs outside the engine.

## Fix

None. Cut the network in front of the operator, or replace it by ones that the target takes. Where another rule reports
the same tensor, its fix may be all that is needed.

## Fix safety

Needs review.

Sources: the parser of the installed TensorRT-RTX; the operators that every TensorRT takes: onnx-tensorrt's
docs/operators.md since 8.5.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ402", "unsupported-operator"
ASKING_TARGET = "rtx"
EVERYWHERE = frozenset({
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp", "Expand", "Flatten", "Gather",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "MatMul",
    "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt",
    "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = Relu (x)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = Hardmax (x)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor whose node the target's parser refuses."""
    if context.refusals is None or not (context.target == ASKING_TARGET or _holds_another(model)):
        return
    refused = context.refusals(model)
    for tensor, reason in dict(refused).items():
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': the parser refuses what writes it ({reason})",
            safety="needs review",
            fixable=False,
        )


def _holds_another(model: ir.Model) -> bool:
    nodes = ((node.domain in ("", "ai.onnx"), node.op_type) for node in reading.nodes(model))
    return any(not standard or kind not in EVERYWHERE for standard, kind in nodes)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
