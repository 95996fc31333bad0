"""TQ209 concat-branch-float: one branch of a Concat has no quantizer while others have one.

## What it does

Finds Concats with dequantized branches and float ones whose result goes, through pools, reshapes and the like at most,
to a layer with quantized weights that has no quantizer of its own on it. One finding for a Concat. Where a quantizer
follows the Concat it is cloned to every branch, and a missing pair costs nothing: no finding.

## Why it matters

The quantizers of the other branches are meant for the layer behind. A DequantizeLinear can move behind a Concat only
when all branches have one of the same scale; with one float branch the Concat is float, every other branch is
dequantized in front of it, and the layer runs in float. Three branches of 32 channels in TensorRT-RTX 1.7: 9.54 MB of
activations and a float convolution with one branch float, 7.16 MB and an int8 one with all quantized.

## Fix

A Q/DQ pair behind the Concat, in front of each such layer: it is cloned to every branch, the float one included, and
meets the pairs of the others. All of them take the widest scale: that of the quantized branches or the float branch's
own, which comes from a quantizer that reads the same tensor or from `--calibration IMAGES`. No scale is invented.

## Fix safety

Numeric: the float branch is rounded now, and the narrow branches are rounded in coarser steps.

Sources: TensorRT developer guide, "Explicit quantization" (a layer may be crossed if quantizing commutes with it;
quantize every input of weighted layers); pass SplitQAcrossPrecedingFanIn in verbose build logs of TensorRT 8.4 and 8.5;
layer tables of TensorRT-RTX 1.7.1 with none, two and three of three branches quantized.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import is_member, joint_of
from trtq.rules import missing_pairs
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.missing_pairs import Place, Range
from trtq.rules.outlook import dequantized
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ209", "concat-branch-float"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
<float x_scale = {0.1}, float t_scale = {0.2}, float w_scale = {0.01}, int8 zero = {0},
 int8[2,2,1,1] w_q = {1, 2, 3, 4}, int8[2,4,1,1] v_q = {1, 2, 3, 4, 5, 6, 7, 8}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    v = DequantizeLinear (v_q, w_scale, zero)
    left = Conv (x_dq, w)
    right = Conv (x_dq, w)
    left_q = QuantizeLinear (left, t_scale, zero)
    left_dq = DequantizeLinear (left_q, t_scale, zero)
    right_q = QuantizeLinear (right, t_scale, zero)
    right_dq = DequantizeLinear (right_q, t_scale, zero)
    z = Conv (right_dq, w)
    joined = Concat <axis = 1> (left_dq, right)
    joined_q = QuantizeLinear (joined, t_scale, zero)
    joined_dq = DequantizeLinear (joined_q, t_scale, zero)
    y = Conv (joined_dq, v)
}
"""
BAD = GOOD.replace("Conv (joined_dq, v)", "Conv (joined, v)").replace(
    """    joined_q = QuantizeLinear (joined, t_scale, zero)
    joined_dq = DequantizeLinear (joined_q, t_scale, zero)
""",
    "",
)


@dataclass(frozen=True)
class Mixed:
    """A Concat of float and dequantized branches, and the readers with quantized weights that it leaves float."""

    concat: ir.Node
    floats: tuple[ir.Value, ...]
    quantizers: tuple[ir.Node, ...]
    places: tuple[Place, ...]
    alone: bool  # whether those readers are all there are


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each Concat that a float branch keeps out of int8."""
    found = list(_mixed(model))
    ranges = missing_pairs.ranges_of(model, [value for one in found for value in one.floats], context)
    for one in found:
        own = [ranges[id(value)] for value in one.floats]
        names, joined = tuple(map(reading.name, one.floats)), reading.name(one.concat.outputs[0])
        conversions = tuple(dict.fromkeys(reading.name(node.outputs[0]) for node in one.quantizers))
        waiting = next((each for each in own if not each.known), None)
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=names,
            removes=conversions if one.alone else (),
            message=f"tensor{'s' if len(names) > 1 else ''} {listed(names)}: float branch of the Concat that writes"
            f" '{joined}', whose other branches are quantized, so what reads it runs in float; {_remedy(waiting)}",
            safety="numeric",
            fixable=waiting is None,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put a pair behind each finding's Concat, give its branches one scale, in place; return how many were mended."""
    wanted = {finding.tensors for finding in findings}
    found = [one for one in _mixed(model) if tuple(map(reading.name, one.floats)) in wanted]
    ranges = missing_pairs.ranges_of(model, [value for one in found for value in one.floats], context)
    mended = 0
    for one in found:
        branches = [Range(node) for node in one.quantizers] + [ranges[id(value)] for value in one.floats]
        if not all(branch.known for branch in branches):
            continue
        widest = max(branches, key=lambda branch: branch.scale)
        made = missing_pairs.insert(model, one.places, {id(place.tensor): widest for place in one.places}, "joined")
        missing_pairs.join(model, {reading.name(new.outputs[0]) for new in made})
        mended += 1
    return mended


def _remedy(waiting: Range | None) -> str:
    if waiting is None:
        return "the fix quantizes behind the Concat, with one scale for all its branches"
    return waiting.remedy


def _mixed(model: ir.Model) -> Iterator[Mixed]:
    for node in reading.nodes(model):
        if node.op_type != "Concat" or joint_of(node) is None or any(map(reading.is_constant, node.inputs)):
            continue
        values = [value for value in node.inputs if value is not None]
        floats = tuple(dict.fromkeys(value for value in values if not dequantized(value)))
        quantizers = [_quantizer(value) for value in values if dequantized(value)]
        if not floats or not quantizers:
            continue
        places, alone = _int8_ready(node.outputs[0])
        members = tuple(one for one in quantizers if one is not None and is_member(one))
        if places and len(members) == len(quantizers):
            yield Mixed(node, floats, members, places, alone)


def _quantizer(value: ir.Value) -> ir.Node | None:
    source = reading.source(value)
    dequantize = None if source is None else source.producer()
    quantized = None if dequantize is None else dequantize.inputs[0]
    return None if quantized is None else quantized.producer()


def _int8_ready(joined: ir.Value) -> tuple[tuple[Place, ...], bool]:
    """Return where float data meets quantized weights behind `joined`, and whether nothing else reads it.

    No place where a quantizer reads it too: that one moves in front of the Concat already.
    """
    places: list[Place] = []
    alone = not joined.is_graph_output()
    reached, seen = [joined], {id(joined)}
    while reached:
        value = reached.pop()
        for node in dict.fromkeys(value.consumers()):
            if reading.is_quantize(node):
                return (), False
            if node.op_type in reading.WEIGHTED and node.inputs[0] is value and dequantized(node.inputs[1]):
                places.append(Place(node, value))
            elif joint_of(node) is not None and node.op_type != "Concat":
                new = [one for one in node.outputs if id(one) not in seen]
                alone = alone and not any(one.is_graph_output() for one in new)
                reached.extend(new)
                seen.update(map(id, new))
            else:
                alone = False
    return tuple(places), alone


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
