"""TQ203 pair-before-activation: a Q/DQ pair stands between a convolution or a sum and what fuses into it.

## What it does

Finds Conv, ConvTranspose, Gemm, MatMul, BatchNormalization and Add whose result only an activation reads, through a
Q/DQ pair: Relu, Clip, LeakyRelu and the like, or SiLU and other gates, whose pairs between the gate and its Mul belong
to the same finding. A pair between a convolution and its BatchNormalization counts as well, and one between an int8
convolution and the residual Add that would fuse into it (of two convolutions, the later). One finding for a kernel.

## Why it matters

TensorRT runs a convolution, its batch normalization and its activation as one kernel, and quantizes what that kernel
writes. A pair in between forbids it: the convolution writes int8, and the activation is a kernel of its own that reads
int8 and dequantizes, and is often followed by one more quantizer. The values are rounded twice. A fused Conv+Add takes
its residual in int8 and its own convolution's result as it is: with pairs on both inputs the Add is a kernel of its
own, in float with two dequantizers where an activation follows. TensorRT-RTX 1.7 never
fuses the two for int8 and shows no difference but one rounding more in the same kernel; classic TensorRT does.

## Fix

The pair goes, and the pair behind the activation, if there is one, fuses into the kernel. Where nothing behind a Relu
quantizes, the pair moves there with its scale: a maximum with zero commutes with rounding, so that the next layer
still reads int8.

## Fix safety

Numeric: values are rounded once instead of twice, and are not cut in front of the activation. Moving a pair behind a
Relu changes nothing.

Sources: NVIDIA's tensorflow-quantization, residual cases (Q/DQ on all inputs of an Add but the one from a Conv);
TensorRT developer guide, "Explicit quantization", Q/DQ layer-placement recommendations ("do not simulate
batch normalization and ReLU fusions"); passes GenericConvActFusion and ConvReluFusion in verbose build logs of
TensorRT 8.4 and 8.5; layer tables of TensorRT-RTX 1.7.1 with the pair in front of and behind Relu.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import is_member, joint_of, wanted_int8
from trtq.rules import breaks, readers
from trtq.rules.breaks import Break
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.origins import feeds_int8, origins
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ203", "pair-before-activation"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float t_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    t = Conv (x_dq, w)
    active = Relu (t)
    active_q = QuantizeLinear (active, t_scale, zero)
    active_dq = DequantizeLinear (active_q, t_scale, zero)
    y = Conv (active_dq, w)
}
"""
BAD = GOOD.replace(
    """    active = Relu (t)
    active_q = QuantizeLinear (active, t_scale, zero)
    active_dq = DequantizeLinear (active_q, t_scale, zero)
    y = Conv (active_dq, w)
""",
    """    t_q = QuantizeLinear (t, t_scale, zero)
    t_dq = DequantizeLinear (t_q, t_scale, zero)
    active = Relu (t_dq)
    y = Conv (active, w)
""",
)


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each kernel with pairs between it and its activation."""
    moving = _moving(model)
    for one in breaks.find(model):
        behind = "moves the pair behind it" if id(one.operator) in moving else "takes the pair away"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=one.tensors,
            removes=() if id(one.operator) in moving else tuple(reading.name(node.outputs[0]) for node in one.pairs),
            message=f"tensor{'s' if len(one.tensors) > 1 else ''} {listed(one.tensors)}: quantized between a kernel and"
            f" its {one.operator.op_type}, which keeps them from running as one; the fix {behind}",
            safety="lossless" if id(one.operator) in moving else "numeric",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Take the findings' pairs away, or move them behind their Relu, in place; return how many findings were mended."""
    wanted = {name for finding in findings for name in finding.tensors}
    moving = _moving(model)
    found = [one for one in breaks.find(model) if wanted.intersection(one.tensors)]
    taken = editing.names(model) if found else set()
    for one in found:
        if id(one.operator) in moving:
            prefix = reading.name(one.result)
            parameters = pairs.parameters_of(model, one.pairs[0], prefix, taken)
            pairs.insert_behind(model, one.result, parameters, taken)
        for quantizer in one.pairs:
            pairs.remove(model, quantizer)
    return len(found)


def _moving(model: ir.Model) -> set[int]:
    """Return the ids of the activations behind which the pair has to go, for what reads them to stay int8."""
    found = breaks.find(model)
    if not found:
        return set()
    wanted, known = wanted_int8(model), origins(model)
    return {id(one.operator) for one in found if _moves(one, known) and id(one.result) not in wanted}


def _moves(one: Break, known: dict[int, ir.Node]) -> bool:
    """Tell whether the one pair commutes with the activation, and a quantized layer reads the result."""
    if len(one.pairs) != 1 or joint_of(one.operator) is None or not is_member(one.pairs[0]):
        return False
    own = {reading.scalar_scale(node) for node in (one.pairs[0], *readers.dequantizers_of(one.pairs[0]))}
    return len(own) == 1 and not one.result.is_graph_output() and feeds_int8(one.result, known)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
