"""TQ309 computed-scale: a scale or zero point is computed by other nodes instead of being a constant.

## What it does

Finds Q/DQ whose scale or zero point comes from an operator: a Cast of a float16 constant, a product of two scales, a
ConstantOfShape. Constant and Identity nodes are fine. One finding for a tensor.

## Why it matters

TensorRT wants both at build time. Two Casts of one constant as the scales of a weight's Q and DQ corrupt the heap of
TensorRT-RTX's builder and kill its process; the file is valid ONNX, and two common FP16 converters write it. A scale
that depends on the input (dynamic quantization) has no TensorRT form at all.

## Fix

Where all goes back to constants, the nodes are computed now and their result is stored: equal values become one
initializer. A scale that depends on the network's input stays open: quantize statically, with calibration.

## Fix safety

Lossless.

Sources: NvInfer.h, IQuantizeLayer (scale and zero point are build-time constants); an abort of TensorRT-RTX 1.7.1 on
such a file, which builds after the fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.constants import computed_from_constants, fold
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import is_pair

CODE, NAME = "TQ309", "computed-scale"
PLACES = {1: "scale", 2: "zero point"}

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.01, 0.02}, int8[2] zero = {0, 0},
 float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w_q = QuantizeLinear <axis = 0> (w, w_scale, zero)
    w_dq = DequantizeLinear <axis = 0> (w_q, w_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float16[2] w_half = {8479, 9503}, int8[2] zero = {0, 0},
 float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    q_scale = Cast <to = 1> (w_half)
    w_q = QuantizeLinear <axis = 0> (w, q_scale, zero)
    dq_scale = Cast <to = 1> (w_half)
    w_dq = DequantizeLinear <axis = 0> (w_q, dq_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor with a Q or DQ whose scale or zero point is computed."""
    for tensor, places in _computed(model).items():
        operators = dict.fromkeys(producer.op_type for producer in map(_producer, places) if producer is not None)
        what = " and ".join(dict.fromkeys(PLACES[index] for _, index in places))
        fixable = all(computed_from_constants(node.inputs[index]) is not None for node, index in places)
        remedy = (
            "the fix stores the result"
            if fixable
            else "it depends on the network's input, so quantize statically instead"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': its {what} is computed by {' and '.join(operators)}, and TensorRT wants a"
            f" constant (its builder can crash on this); {remedy}",
            safety="lossless" if fixable else "needs review",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Store what the findings' tensors compute their scale and zero point from, in place; return how many tensors."""
    wanted = {name for finding in findings for name in finding.tensors}
    taken = editing.names(model) if findings else set()
    stored: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    mended = 0
    for tensor, places in _computed(model).items():
        arrays = [] if tensor not in wanted else [_folded(model, node, index) for node, index in places]
        if not arrays or any(array is None for array in arrays):
            continue
        mended += 1
        for (node, index), array in zip(places, arrays, strict=True):
            assert array is not None
            key = (str(array.dtype), array.shape, array.tobytes())
            old = node.inputs[index]
            if key not in stored:
                label = editing.unused_name(f"{reading.name(old)}_folded", taken)
                stored[key] = editing.add_initializer(model, label, array)
            node.replace_input_with(index, stored[key])
            _drop(model, old)
    return mended


def _computed(model: ir.Model) -> dict[str, list[tuple[ir.Node, int]]]:
    """Return the places where a computed scale or zero point goes in, by the tensor that is quantized."""
    found: dict[str, list[tuple[ir.Node, int]]] = {}
    for node in reading.nodes(model):
        if not is_pair(node):
            continue
        for index in (1, 2):
            producer = _producer((node, index))
            if producer is not None and producer.op_type != "Constant":
                found.setdefault(reading.name(reading.quantized_tensor(node)), []).append((node, index))
    return found


def _producer(place: tuple[ir.Node, int]) -> ir.Node | None:
    node, index = place
    value = reading.source(node.inputs[index]) if index < len(node.inputs) else None
    return None if value is None else value.producer()


def _folded(model: ir.Model, node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    value = node.inputs[index]
    return None if value is None else fold(model, value)


def _drop(model: ir.Model, value: ir.Value | None) -> None:
    """Take away what computed a constant that nothing reads any more, back to the initializers."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is None or one.uses() or one.is_graph_output() or one.is_graph_input():
            continue
        node = one.producer()
        if node is None:
            model.graph.initializers.pop(reading.name(one), None)
        elif not any(output.uses() or output.is_graph_output() for output in node.outputs):
            waiting.extend(node.inputs)
            model.graph.remove(node, safe=True)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
