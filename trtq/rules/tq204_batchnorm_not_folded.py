"""TQ204 batchnorm-not-folded: a BatchNormalization stands behind a convolution as an operator of its own.

## What it does

Finds BatchNormalizations that alone read the result of a Conv. One finding for a BatchNormalization. One in front of a
convolution, or behind a tensor that others read too, cannot be folded and is left alone. A Q/DQ pair in between is
TQ203's.

## Why it matters

TensorRT folds it itself where its statistics are constants and nothing stands between. Where they are not, in a file
exported in training mode or with its statistics as inputs, it runs as several float kernels (three a layer in an engine
built on a Jetson Orin), and the convolution cannot write int8. Unfolded, each of them also doubles what the parser
reads (1655 against 686 layers for MobileNetV2), and the weights' scales in the file are not those that the engine uses,
since those of a channel are scaled with it.

## Fix

Each output channel of the weights is scaled by gamma / sqrt(variance + epsilon); the bias takes up the rest. Quantized
weights keep their integers: their scales, one for each output channel, take the factor, and integers of a channel with
a negative factor change their sign.

## Fix safety

Numeric: the same integers and the same product, but float arithmetic in another order: results differ in their last
bits, and a rounding further down may fall the other way.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3.2; ONNX BatchNormalization; TensorRT developer guide, fusion list (Conv and Scale); verbose build log of an
engine with training-mode normalization on Orin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules import folding, readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.folding import Fold

CODE, NAME = "TQ204", "batchnorm-not-folded"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float[2] w_scale = {0.005, 0.02}, int8 zero = {0}, int8[2] zeros = {0, 0},
 int8[2,2,1,1] w_q = {1, 2, -3, -4}, float[2] bias = {0.05, 0.5}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear <axis = 0> (w_q, w_scale, zeros)
    y = Conv (x_dq, w, bias)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4},
 float[2] gamma = {1, -2}, float[2] beta = {0, 0.5}, float[2] mean = {-0.1, 0}, float[2] variance = {4, 1}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    t = Conv (x_dq, w)
    y = BatchNormalization <epsilon = 0.0> (t, gamma, beta, mean, variance)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each BatchNormalization behind a Conv."""
    for one in _found(model):
        name = reading.name(one.normalization.outputs[0])
        remedy = one.obstacle or "the fix folds it into the weights and the bias"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': the BatchNormalization of the Conv that writes"
            f" '{reading.name(one.convolution.outputs[0])}' is not folded into it; {remedy}",
            safety="needs review" if one.obstacle else "numeric",
            fixable=not one.obstacle,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Fold the findings' BatchNormalizations, in place; return how many."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = [one for one in _found(model) if not one.obstacle]
    found = [one for one in found if reading.name(one.normalization.outputs[0]) in wanted]
    taken = editing.names(model) if found else set()
    for one in found:
        folding.fold(model, one, taken)
    return len(found)


def _found(model: ir.Model) -> Iterator[Fold]:
    for node in reading.nodes(model):
        if node.op_type != "BatchNormalization":
            continue
        source = reading.source(node.inputs[0])
        convolution = None if source is None else source.producer()
        if convolution is not None and convolution.op_type == "Conv":
            nodes, given_out = readers.of(convolution.outputs[0])
            if nodes == [node] and not given_out:
                yield Fold(node, convolution, folding.obstacle(node, convolution))


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
