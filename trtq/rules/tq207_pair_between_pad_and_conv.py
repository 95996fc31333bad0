"""TQ207 pair-between-pad-and-conv: a Q/DQ pair stands between a zero Pad and the convolution that it pads for.

## What it does

Finds Convs that read a Q/DQ pair on the result of a Pad which adds zeros to height and width (or to the one or three
dimensions that the Conv runs over). One finding for a Pad.

## Why it matters

TensorRT merges a Pad into the convolution behind it, but not with a quantizer between the two. The Pad is then a copy
of the whole tensor by a kernel of its own, in float: in a published ResNet50 engine the network's first Pad became a
float Slice layer in front of the quantizer.

## Fix

The convolution pads by itself: its `pads` take those of the Pad, and it reads a pair of the same scale on the tensor in
front of the Pad. Other readers keep what they read. Where the Conv computes its own padding (`auto_pad`), nothing is
changed: give it explicit `pads`, or put the pair in front of the Pad.

## Fix safety

Lossless: zero is exact in every symmetric scale.

Sources: TensorRT developer guide, fusion list (Padding and Convolution); NVIDIA/TensorRT issue 2592 (no Q/DQ between
Pad and Conv); layer table of a published ResNet50 engine exported from TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import is_member, joint_of
from trtq.rules import readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ207", "pair-between-pad-and-conv"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0},
 int8[2,2,3,3] w_q = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                      1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv <pads = [1, 1, 1, 1]> (x_dq, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int64[8] amounts = {0, 0, 1, 1, 0, 0, 1, 1},
 int8[2,2,3,3] w_q = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                      1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
{
    padded = Pad (x, amounts)
    padded_q = QuantizeLinear (padded, x_scale, zero)
    padded_dq = DequantizeLinear (padded_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (padded_dq, w)
}
"""


@dataclass(frozen=True)
class Padded:
    """A Pad, the convolutions that read its result, each with the quantizer between, and what it adds."""

    pad: ir.Node
    convolutions: tuple[tuple[ir.Node, ir.Node], ...]
    amounts: tuple[int, ...]  # of the dimensions that a Conv runs over: all begins, then all ends

    @property
    def fixable(self) -> bool:
        """Whether every convolution can take the padding over."""
        return all(map(_pads_explicitly, (node for node, _ in self.convolutions)))


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each Pad with pairs between it and convolutions."""
    for one in _found(model):
        name = reading.name(one.pad.outputs[0])
        remedy = (
            "the fix lets the convolution pad"
            if one.fixable
            else "the convolution computes its own padding (auto_pad): give it explicit pads"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': quantized between a Pad and its convolution, which keeps the Pad a kernel of its"
            f" own; {remedy}",
            safety="lossless" if one.fixable else "needs review",
            fixable=one.fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Let the convolutions pad by themselves, in place; return how many Pads were mended."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = [one for one in _found(model) if one.fixable and reading.name(one.pad.outputs[0]) in wanted]
    taken = editing.names(model) if found else set()
    for one in found:
        source = one.pad.inputs[0]
        assert source is not None
        prefix = f"{reading.name(source)}_unpadded"
        for convolution, quantizer in one.convolutions:
            parameters = pairs.parameters_of(model, quantizer, prefix, taken)
            padded = convolution.inputs[0]
            convolution.replace_input_with(0, source)
            pairs.insert(model, convolution, source, parameters, taken, prefix=prefix)
            _add_pads(convolution, one.amounts)
            dequantizer = readers.dequantizer_before(padded)
            assert dequantizer is not None
            pairs.drop(model, dequantizer)
    return len(found)


def _found(model: ir.Model) -> Iterator[Padded]:
    for node in reading.nodes(model):
        if node.op_type != "Pad" or joint_of(node) is None:
            continue
        amounts = _amounts(node)
        convolutions = [] if amounts is None else list(_convolutions(node.outputs[0], len(amounts) // 2))
        if amounts is not None and convolutions:
            yield Padded(node, tuple(convolutions), amounts)


def _convolutions(padded: ir.Value, dimensions: int) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield the convolutions over so many dimensions that read a pair on `padded`, with the pair's quantizer."""
    for quantizer in readers.of(padded)[0]:
        for dequantizer in readers.dequantizers_of(quantizer) if is_member(quantizer) else ():
            if reading.scalar_scale(dequantizer) != reading.scalar_scale(quantizer):
                continue
            for node in readers.of(dequantizer.outputs[0])[0]:
                reads = readers.dequantizer_before(node.inputs[0]) is dequantizer if node.op_type == "Conv" else False
                if reads and _dimensions(node) == dimensions:
                    yield node, quantizer


def _amounts(pad: ir.Node) -> tuple[int, ...] | None:
    """Return what a Pad adds to each dimension behind batch and channels, or None where it touches those or cuts."""
    amounts = _stated(pad)
    if amounts is None:
        return None
    axes = reading.constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        shape = pad.inputs[0].shape if pad.inputs[0] is not None else None
        if axes is None or shape is None:
            return None
        amounts = _spread(amounts, [int(one) for one in axes.reshape(-1)], len(shape))
    rank = len(amounts) // 2
    begins, ends = amounts[:rank], amounts[rank:]
    if rank < 3 or any((*begins[:2], *ends[:2])) or min(amounts) < 0 or not any(amounts):
        return None
    return (*begins[2:], *ends[2:])


def _stated(pad: ir.Node) -> list[int] | None:
    """Return the amounts as the file states them: an attribute before opset 11, an input since."""
    given = pad.attributes.get("pads")
    if given is not None:
        return list(given.as_ints())
    constant = reading.constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    return None if constant is None else [int(one) for one in constant.reshape(-1)]


def _spread(amounts: list[int], axes: list[int], rank: int) -> list[int]:
    """Return the amounts of all axes from those of some."""
    result = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        result[axis % rank] = amounts[place]
        result[axis % rank + rank] = amounts[place + len(axes)]
    return result


def _dimensions(convolution: ir.Node) -> int | None:
    """Return how many dimensions a Conv runs over, or None where the file does not say."""
    kernel = convolution.attributes.get("kernel_shape")
    if kernel is not None:
        return len(kernel.as_ints())
    dequantizer = readers.dequantizer_before(convolution.inputs[1])
    weights = reading.source(convolution.inputs[1]) if dequantizer is None else reading.quantized_tensor(dequantizer)
    return None if weights is None or weights.shape is None else len(weights.shape) - 2


def _pads_explicitly(convolution: ir.Node) -> bool:
    automatic = convolution.attributes.get("auto_pad")
    return automatic is None or automatic.as_string() in ("NOTSET", "VALID")


def _add_pads(convolution: ir.Node, amounts: tuple[int, ...]) -> None:
    own = convolution.attributes.get("pads")
    pads = own.as_ints() if own is not None else [0] * len(amounts)
    convolution.attributes.pop("auto_pad", None)
    convolution.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(pads, amounts, strict=True)])


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
