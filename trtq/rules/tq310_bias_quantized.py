"""TQ310 bias-quantized: a bias is stored quantized, with a DequantizeLinear.

## What it does

Finds int32 constants with a DequantizeLinear, and every constant whose Q/DQ feeds the bias of a Conv, ConvTranspose or
Gemm. One finding for a bias.

## Why it matters

TensorRT's parser refuses int32 in Q/DQ, so no engine is built; ONNX Runtime writes this by default. A bias needs no
Q/DQ: TensorRT computes its integer form from the scales of input and weight.

## Fix

The bias becomes the float numbers that its DequantizeLinear gives.

## Fix safety

Lossless: the same numbers. In onnxruntime.quantization `QuantizeBias: False` avoids it, and keeps the exact bias.

Sources: TensorRT developer guide, "Explicit quantization" (bias is not quantized); TensorRT-RTX 1.7 refuses such a
file and builds the fixed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Parameters, codes, fits, parameters

CODE, NAME = "TQ310", "bias-quantized"
BIASED = ("Conv", "ConvTranspose", "Gemm")
BIAS = 2

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4},
 float[2] bias = {0.5, -0.25}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w, bias)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4},
 float bias_scale = {0.001}, int32[2] bias_q = {500, -250}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    bias = DequantizeLinear (bias_q, bias_scale)
    y = Conv (x_dq, w, bias)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each quantized bias."""
    reported: set[str] = set()
    for node in reading.nodes(model):
        name = reading.name(reading.quantized_tensor(node)) if _is_bias(node) else ""
        if not name or name in reported:
            continue
        reported.add(name)
        fixable = _floats(node) is not None
        remedy = "the fix stores the float numbers" if fixable else "its scale is computed; export the bias as float"
        dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
        shown = f" as {dtype.name.lower()}" if dtype is not None else ""
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': a bias stored{shown} with a DequantizeLinear, which TensorRT refuses; {remedy}",
            safety="lossless" if fixable else "needs review",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Store the findings' biases as float, in place; return how many."""
    wanted = {name for finding in findings for name in finding.tensors}
    taken = editing.names(model) if findings else set()
    mended: set[str] = set()
    for node in reading.nodes(model):
        name = reading.name(reading.quantized_tensor(node)) if _is_bias(node) else ""
        floats = _floats(node) if name in wanted else None
        if floats is None:
            continue
        value = editing.add_initializer(model, editing.unused_name(f"{name}_float", taken), floats)
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        _drop(model, node)
        mended.add(name)
    return len(mended)


def _is_bias(node: ir.Node) -> bool:
    """Tell whether a DequantizeLinear gives a constant that is int32, or that something adds as its bias."""
    if not reading.is_dequantize(node) or reading.is_activation(node) or node.outputs[0].is_graph_output():
        return False
    stored = reading.source(node.inputs[0])
    if stored is not None and stored.dtype is ir.DataType.INT32:
        return True
    uses = node.outputs[0].uses()
    return bool(uses) and all(use.node.op_type in BIASED and use.idx == BIAS for use in uses)


def _floats(node: ir.Node) -> npt.NDArray[Any] | None:
    """Return the numbers that a constant's DequantizeLinear gives, (integer - zero point) * scale."""
    own, stored = parameters(node), reading.constant(node.inputs[0])
    if stored is None:
        quantizer = _quantizer(node)
        before = None if quantizer is None else parameters(quantizer)
        values = None if quantizer is None else reading.constant(quantizer.inputs[0])
        if own is None or before is None or values is None or not before.equals(own) or own.dtype.kind not in "iu":
            return None
        if not fits(values, own):
            return None
        return _scaled(codes(values, own), own)
    return None if own is None or not fits(stored, own) else _scaled(codes(stored, own), own)


def _scaled(integers: npt.NDArray[np.int64], own: Parameters) -> npt.NDArray[Any]:
    scale = own.along(own.scale, integers.ndim)
    return (integers.astype(np.float32) * scale.astype(np.float32)).astype(own.scale.dtype)


def _quantizer(node: ir.Node) -> ir.Node | None:
    value = reading.source(node.inputs[0])
    return None if value is None else value.producer()


def _drop(model: ir.Model, node: ir.Node) -> None:
    """Take away a pair that nothing reads any more, and its constants."""
    while not any(value.uses() for value in node.outputs):
        inputs, before = list(node.inputs), _quantizer(node)
        model.graph.remove(node, safe=True)
        for value in inputs:
            if value is not None and (value.producer() is None or not reading.is_quantize(value.producer())):
                editing.drop_unused(model, value)
        if before is None or not reading.is_quantize(before):
            return
        node = before


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
