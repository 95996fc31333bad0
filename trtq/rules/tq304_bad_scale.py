"""TQ304 bad-scale: a scale that is zero, negative, denormal, infinite or not a number.

## What it does

Finds Q/DQ with a constant scale that is not a normal positive float32 (in any channel). One finding for a tensor.

## Why it matters

The parser stops with "Scale coefficients must all be positive" at a zero, negative or denormal scale. An infinite scale
or NaN turns the tensor into zeros or NaN. Such scales come from channels that are all zero and from calibration that
saw no data, or only zeros.

## Fix

Where all weights of each such channel are zero, a dead channel, its scale becomes 1: zero in any scale. Anything else
needs a new calibration: no scale is invented.

## Fix safety

Lossless for dead channels. Everything else needs review.

Sources: NvInfer.h, IQuantizeLayer ("scale ... must be positive"); reports of the parser's message for zero and denormal
scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import pairs

CODE, NAME = "TQ304", "bad-scale"
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)  # float16 scales are widened before use, so one limit holds for all
SHOWN_CHANNELS = 3

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.01, 1.0}, int8[2] zero = {0, 0},
 float[2,2,1,1] w = {0.5, 0.25, 0.0, 0.0}>
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
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] w_scale = {0.01, 0.0}, int8[2] zero = {0, 0},
 float[2,2,1,1] w = {0.5, 0.25, 0.0, 0.0}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w_q = QuantizeLinear <axis = 0> (w, w_scale, zero)
    w_dq = DequantizeLinear <axis = 0> (w_q, w_scale, zero)
    y = Conv (x_dq, w_dq)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor that has a Q or DQ with a bad scale."""
    for name, nodes in _bad_nodes(model).items():
        scale = reading.scale(nodes[0])
        assert scale is not None
        dead = all(_is_dead(node) for node in nodes)
        remedy = (
            "all its weights there are zero, so the fix sets the scale to 1"
            if dead
            else "the range is not in the file: calibrate this tensor again"
        )
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': {_described(scale)}, and TensorRT takes positive normal numbers only; {remedy}",
            safety="lossless" if dead else "needs review",
            fixable=dead,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give dead channels the scale 1, in place; return how many tensors were mended."""
    wanted = {finding.tensors[0] for finding in findings}
    taken = editing.names(model)
    mended = 0
    replaced: dict[ir.Value | None, None] = {}
    for name, nodes in _bad_nodes(model).items():
        if name not in wanted or not all(_is_dead(node) for node in nodes):
            continue
        new: dict[int, ir.Value] = {}
        for node in nodes:
            scale, old = reading.scale(node), node.inputs[1]
            assert scale is not None
            if id(old) not in new:
                label = editing.unused_name(f"{name}_scale_mended", taken)
                new[id(old)] = editing.add_initializer(
                    model, label, np.where(_bad(scale), 1, scale).astype(scale.dtype)
                )
            node.replace_input_with(1, new[id(old)])
            replaced[old] = None
        mended += 1
    for value in replaced:
        editing.drop_unused(model, value)
    return mended


def _bad_nodes(model: ir.Model) -> dict[str, list[ir.Node]]:
    """Return the Q and DQ nodes with a bad scale, by the tensor that they work on."""
    found: dict[str, list[ir.Node]] = {}
    for node in pairs(model):
        scale = reading.scale(node)
        if scale is not None and _bad(scale).any():
            found.setdefault(reading.name(reading.quantized_tensor(node)), []).append(node)
    return found


def _bad(scale: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    wide = scale.astype(np.float32)
    bad: npt.NDArray[np.bool_] = ~((wide >= SMALLEST_NORMAL) & np.isfinite(wide))
    return bad


def _is_dead(node: ir.Node) -> bool:
    """Tell whether the constant that `node` works on is zero in every channel whose scale is bad."""
    scale, weights = reading.scale(node), reading.constant(reading.quantized_tensor(node))
    if scale is None or weights is None:
        return False
    zero_point = None if weights.dtype.kind == "f" else reading.zero_point(node)
    zeros = weights == (0 if zero_point is None else _along(zero_point, node, weights.ndim))
    if scale.size == 1:
        return bool(zeros.all())
    axis = _axis(node) % weights.ndim
    if scale.ndim != 1 or scale.size != weights.shape[axis]:
        return False
    dead = zeros.all(axis=tuple(other for other in range(weights.ndim) if other != axis))
    return bool(dead[_bad(scale)].all())


def _along(values: npt.NDArray[Any], node: ir.Node, rank: int) -> npt.NDArray[Any]:
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[_axis(node) % rank] = values.size
    return values.reshape(shape)


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 1


def _described(scale: npt.NDArray[Any]) -> str:
    wide = scale.astype(np.float32).reshape(-1)
    channels = np.flatnonzero(_bad(wide))
    kinds = ", ".join(dict.fromkeys(_kind(float(wide[channel])) for channel in channels))
    if scale.size == 1:
        return f"its scale is {kinds}"
    shown = ", ".join(map(str, channels[:SHOWN_CHANNELS])) + (", ..." if len(channels) > SHOWN_CHANNELS else "")
    return f"the scale of {len(channels)} of {scale.size} channels ({shown}) is {kinds}"


def _kind(scale: float) -> str:
    if np.isnan(scale):
        return "not a number"
    if np.isinf(scale):
        return "infinite"
    if scale == 0:
        return "zero"
    return "negative" if scale < 0 else "denormal"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
