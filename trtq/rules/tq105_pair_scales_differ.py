"""TQ105 pair-scales-differ: a QuantizeLinear and the DequantizeLinear behind it have different scales.

## What it does

Finds DequantizeLinears whose scale is not that of the QuantizeLinear whose integers they read, directly or through
operators that only move them; of activations and of weights. One finding for a quantizer.

## Why it matters

Such a pair does not round a tensor, it multiplies it by the ratio of the two scales. Nothing refuses that: ONNX Runtime
and TensorRT calculate what the file says. But TensorRT's passes move and merge QuantizeLinear and DequantizeLinear by
themselves, each by its own scale, so equal neighbours no longer cancel, and `trtq unify` gives both one scale. It comes
from a scale that was written in two precisions, or from an edit that changed one of the two.

## Fix

Where the two agree to the precision of a half float, one is the other one rounded: the DequantizeLinear takes the scale
of its QuantizeLinear. Where they differ by more, the file does not say which one was meant, and nothing is changed:
calibrate the tensor again, or put the ratio into the weights that read it.

## Fix safety

Numeric where there is a fix: values move by less than 0.1 %.

Sources: ONNX QuantizeLinear and DequantizeLinear; TensorRT-RTX 1.7.1 builds such a pair without a warning; IEEE 754
binary16 for the precision of a half float, 11 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.qdq.groups import joint_of
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ105", "pair-scales-differ"
HALF_PRECISION = 2.0**-11  # the largest relative error of rounding to a half float

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (x_dq, w)
}
"""
BAD = GOOD.replace("x_scale = {0.1}", "x_scale = {0.1}, float half_scale = {0.09998}").replace(
    "(x_q, x_scale, zero)", "(x_q, half_scale, zero)"
)


@dataclass(frozen=True)
class Unequal:
    """A quantizer, the DequantizeLinears of its integers that have another scale, and the largest ratio of the two."""

    quantizer: ir.Node
    dequantizers: tuple[ir.Node, ...]
    ratio: float

    @property
    def rounded(self) -> bool:
        """Whether one scale is the other in half precision."""
        return abs(self.ratio - 1) <= HALF_PRECISION


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each quantizer whose integers are dequantized with another scale."""
    for one in _found(model):
        name = reading.name(reading.quantized_tensor(one.quantizer))
        remedy = (
            "it is the same one rounded, and the fix writes it as the quantizer has it"
            if one.rounded
            else "the file does not say which one was meant: calibrate this tensor again, or scale what reads it"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': dequantized with {one.ratio:.6g} times the scale that it is quantized with;"
            f" {remedy}",
            safety="numeric" if one.rounded else "needs review",
            fixable=one.rounded,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give the DequantizeLinears of the findings' tensors their quantizer's scale, in place; return how many pairs."""
    wanted = {name for finding in findings if finding.fixable for name in finding.tensors}
    found = [one for one in _found(model) if one.rounded]
    found = [one for one in found if reading.name(reading.quantized_tensor(one.quantizer)) in wanted]
    taken = editing.names(model) if found else set()
    replaced: dict[ir.Value | None, None] = {}
    for one in found:
        own = reading.scale(one.quantizer)
        assert own is not None
        for node in one.dequantizers:
            old = node.inputs[1]
            replaced[old] = None
            dtype = own.dtype if old is None or old.dtype is None else old.dtype.numpy()
            name = editing.unused_name(f"{reading.name(node.outputs[0])}_scale", taken)
            node.replace_input_with(1, editing.add_initializer(model, name, own.astype(dtype)))
    for value in replaced:
        editing.drop_unused(model, value)
    return len(found)


def _found(model: ir.Model) -> list[Unequal]:
    """Return the pairs with two scales in graph order; linear in the graph's size."""
    origin: dict[int, ir.Node] = {}
    found: dict[ir.Node, dict[ir.Node, float]] = {}
    for node in reading.nodes(model):
        if reading.is_quantize(node):
            origin[id(node.outputs[0])] = node
            continue
        quantizer = next((origin[id(value)] for value in node.inputs if id(value) in origin), None)
        if quantizer is None:
            continue
        if reading.is_dequantize(node):
            ratio = _ratio(quantizer, node)
            if ratio is not None and ratio != 1:
                found.setdefault(quantizer, {})[node] = ratio
        elif joint_of(node) is not None and node.op_type != "Concat":
            origin.update((id(value), quantizer) for value in node.outputs)
    return [
        Unequal(quantizer, tuple(nodes), max(nodes.values(), key=lambda ratio: abs(np.log(ratio))))
        for quantizer, nodes in found.items()
    ]


def _ratio(quantizer: ir.Node, dequantizer: ir.Node) -> float | None:
    """Return the second scale over the first, of the channel where they differ most; None where one is not usable."""
    first, second = reading.scale(quantizer), reading.scale(dequantizer)
    if first is None or second is None or (first.size != second.size and 1 not in (first.size, second.size)):
        return None
    if np.array_equal(first.astype(second.dtype).reshape(-1), second.reshape(-1)):
        return 1.0  # as equal as their types let them be: TQ308 sees to the types
    first, second = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    if not all(np.isfinite(one).all() and (one > 0).all() for one in (first, second)):
        return None
    ratios = second / first
    return float(ratios[np.abs(np.log(ratios)).argmax()])


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
