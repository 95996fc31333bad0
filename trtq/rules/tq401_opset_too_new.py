"""TQ401 opset-too-new: the file's opset is newer than the target's parser reads.

## What it does

Compares the file's ONNX opset with what the target (`--target`) reads: 17 for TensorRT 8.5 and 8.6, 20 for the first
TensorRT 10 (10.15 reads 24), 25 for TensorRT 11. Without a target there is nothing to compare with.

## Why it matters

The parser warns, then fails at the first operator whose form has changed, with a message that does not mention the
opset. A file of opset 21 written by a quantization tool failed that way on TensorRT 8.6 on a Jetson Orin.

## Fix

Where every operator of the file already had its present form in the target's opset, as is usual for Q/DQ files of
opset 18 to 20, the file is labelled with that opset. Otherwise export again with `opset_version=17`.

## Fix safety

Lossless: no operator changes.

Sources: onnx-tensorrt, docs/operators.md of releases 8.5, 8.6, 10.0 and 10.15; TensorRT 11 "ONNX Opset Guide"; NVIDIA/
Model-Optimizer issue 454; ONNX operator change log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import Context, Finding, Rule

CODE, NAME = "TQ401", "opset-too-new"
NEWEST_OPSET = {"trt8.5": 17, "trt8.6": 17, "trt10": 20, "trt11": 25}
# Newer versions of these only take more types, or name a default that was the only behaviour before.
# fmt: off
SAME_FORM = frozenset((
    "QuantizeLinear", "DequantizeLinear", "Cast", "CastLike", "Constant", "ConstantOfShape", "Equal", "Identity",
    "Reshape", "Shape", "Size", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Conv", "ConvTranspose", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Pad", "Dropout", "InstanceNormalization", "LeakyRelu",
    "PRelu", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu", "Mish", "Sin",
    "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Round", "Resize", "Split",
    "IsNaN", "IsInf",
))
# fmt: on

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
<ir_version: 8, opset_import: ["" : 19]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (x_q, x_scale, zero)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield a finding where the file's opset is newer than the target reads."""
    opset, newest = model.opset_imports.get("", 0), NEWEST_OPSET.get(context.target or "", 0)
    if not newest or opset <= newest:
        return
    newer = _newer(model, newest)
    # What is wrong is the file as a whole: its outputs stand for it, or the operators that need the new opset.
    tensors = tuple(reading.name(node.outputs[0]) for node in newer) or tuple(map(reading.name, model.graph.outputs))
    remedy = (
        f"export it again with opset {newest}"
        if newer
        else f"no operator needs it, so the fix labels the file {newest}"
    )
    operators = f" ({', '.join(dict.fromkeys(node.op_type for node in newer))})" if newer else ""
    shown = ", ".join(f"'{name}'" for name in tensors[:4])
    yield Finding(
        code=CODE,
        name=NAME,
        tensors=tensors,
        removes=(),
        message=f"tensor{'s' if len(tensors) > 1 else ''} {shown}: of a file of opset {opset}{operators}, and"
        f" {context.target} reads {newest} for certain; {remedy}",
        safety="needs review" if newer else "lossless",
        fixable=not newer,
    )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Label the file with the newest opset that the target reads, in place; return 1 where that was done."""
    newest = NEWEST_OPSET.get(context.target or "", 0)
    if not newest or model.opset_imports.get("", 0) <= newest or _newer(model, newest):
        return 0
    model.opset_imports[""] = newest
    for domain in ("", *model.graph.opset_imports):
        if domain in ("", "ai.onnx"):
            model.graph.opset_imports[domain] = newest
    return 1


def _newer(model: ir.Model, newest: int) -> list[ir.Node]:
    """Return the nodes that do not mean the same in opset `newest`."""
    opset = model.opset_imports.get("", 0)
    return [
        node for node in model.graph.all_nodes() if node.domain in ("", "ai.onnx") and not _same(node, opset, newest)
    ]


def _same(node: ir.Node, opset: int, newest: int) -> bool:
    """Tell whether a node has the same form and meaning in two opsets."""
    try:
        now, then = onnx.defs.get_schema(node.op_type, opset), onnx.defs.get_schema(node.op_type, newest)
    except onnx.defs.SchemaError:
        return False
    if now.since_version == then.since_version:
        return True
    fits = set(node.attributes) <= set(then.attributes) and len(node.inputs) <= then.max_input
    return node.op_type in SAME_FORM and fits and _takes_its_types(node)


def _takes_its_types(node: ir.Node) -> bool:
    """Tell whether a Q or DQ node works in float32, the one type that all opsets take."""
    if not (reading.is_quantize(node) or reading.is_dequantize(node)):
        return True
    scale, zero_point = node.inputs[1], reading.zero_point(node)
    return (
        scale is not None
        and scale.dtype in (ir.DataType.FLOAT, None)
        and (zero_point is None or zero_point.dtype.name in ("int8", "uint8", "int32"))
    )


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", tuple(NEWEST_OPSET), check, fix)
