"""What TQ301 and TQ302 share: the same range in symmetric int8, the only form that TensorRT takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import joint_of
from trtq.rules.finding import Finding
from trtq.rules.regions import (
    EIGHT_BITS,
    INT8_HIGHEST,
    INT8_LOWEST,
    Edits,
    Parameters,
    Region,
    by_tensor,
    codes,
    fits,
    pairs,
    parameters,
    regions,
)

# What they write is never negative, whatever they read.
POSITIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt", "ReduceL1", "ReduceL2")
# What they write is not negative where nothing that they read is.
MONOTONIC = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "Add", "Mul")


def findings(
    model: ir.Model, code: str, name: str, wrong: Callable[[Parameters], bool], why: Callable[[Parameters], str]
) -> Iterator[Finding]:
    """Yield a finding for each tensor with a region that quantizes in a `wrong` way.

    why: what the message says after the tensor's name.
    """
    for tensor, found in by_tensor(_wrong(model, wrong)).items():
        first = next(one for one in map(parameters, found[0].nodes) if one is not None and wrong(one))
        obstacle = next(filter(None, map(_obstacle, found)), None)
        remedy = f"the fix cannot: {obstacle}" if obstacle else _remedy(found[0], first)
        yield Finding(
            code=code,
            name=name,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': {why(first)}; {remedy}",
            safety="needs review" if obstacle else "numeric",
            fixable=obstacle is None,
        )


def convert(model: ir.Model, wanted: Sequence[Finding], wrong: Callable[[Parameters], bool]) -> int:
    """Give the findings' tensors the same range in symmetric int8, in place; return how many changed."""
    tensors = {name for finding in wanted for name in finding.tensors}
    found = by_tensor(_wrong(model, wrong))
    chosen = [mended for name, mended in found.items() if name in tensors and not any(map(_obstacle, mended))]
    if not chosen:
        return 0
    positive = nonnegative(model)
    with Edits(model) as edits:
        for mended in chosen:
            for region in mended:
                _convert(edits, region, positive)
    return len(chosen)


def nonnegative(model: ir.Model) -> set[int]:
    """Return ids of the tensors that are known never to be negative; linear in the graph's size."""
    known: set[int] = set()
    for node in reading.nodes(model):
        passes = joint_of(node) is not None or reading.is_quantize(node) or reading.is_dequantize(node)
        joint = joint_of(node)
        read = node.inputs if node.op_type in MONOTONIC or (joint and joint.all_inputs) else node.inputs[:1]
        if node.op_type.startswith("Reduce"):
            read = node.inputs[:1]
        if (
            node.op_type in POSITIVE
            or (node.op_type == "Clip" and _clips_negative(node))
            or _dequantizes_from_zero(node)
            or ((passes or node.op_type in MONOTONIC) and all(id(one) in known for one in read))
        ):
            known.update(id(value) for value in node.outputs)
    return known


def _wrong(model: ir.Model, wrong: Callable[[Parameters], bool]) -> Iterator[Region]:
    """Yield the regions that quantize in a `wrong` way; int32 is not quantization but a bias, which TQ310 reports."""
    if not any(_is_wrong(parameters(node), wrong) for node in pairs(model)):
        return
    for region in regions(model):
        if any(_is_wrong(parameters(node), wrong) for node in region.nodes):
            yield region


def _is_wrong(found: Parameters | None, wrong: Callable[[Parameters], bool]) -> bool:
    return found is not None and found.dtype != np.int32 and wrong(found)


def _obstacle(region: Region) -> str | None:
    found = region.parameters
    if region.obstacle or found is None:
        return region.obstacle
    if found.dtype not in EIGHT_BITS:
        return f"{found.dtype} is not 8 bits wide"
    values = reading.constant(region.constant)
    if region.constant is not None and (values is None or not fits(values, found)):
        return "its scales do not fit its shape"
    return None


def _remedy(region: Region, old: Parameters) -> str:
    if region.constant is not None:
        return "the fix stores it as symmetric int8"
    steps = float(_step_ratio(old).max())
    return f"the fix keeps the range in symmetric int8, in steps {steps:.3g} times as wide"


def _step_ratio(old: Parameters) -> npt.NDArray[np.float64]:
    """Return new scale over old: what makes symmetric int8 reach as far as the old range on both sides of zero."""
    limits, zero_point = np.iinfo(old.dtype), old.zero_point.astype(np.float64)
    ratio: npt.NDArray[np.float64] = np.maximum(
        (limits.max - zero_point) / INT8_HIGHEST, (limits.min - zero_point) / INT8_LOWEST
    )
    return ratio


def _convert(edits: Edits, region: Region, positive: set[int]) -> None:
    old = region.parameters
    assert old is not None
    values = reading.constant(region.constant)
    shifted = None if values is None else codes(values, old)
    ratio = np.broadcast_to(_step_ratio(old) if shifted is None else _code_ratio(shifted, old), old.scale.shape)
    scale = (old.scale.astype(np.float64) * ratio).astype(old.scale.dtype)
    if values is not None and shifted is not None:
        _store(edits, region, values, shifted, ratio)
    elif old.from_zero:
        for node in region.quantizing:
            if _may_have_lost_a_relu(node, positive):
                edits.relu(node)
    edits.parameters(region, Parameters(scale, np.zeros(scale.shape, np.int8), np.dtype(np.int8), old.axis))


def _code_ratio(shifted: npt.NDArray[np.int64], old: Parameters) -> npt.NDArray[np.float64]:
    """Return new scale over old for a constant: 1 for each channel whose integers fit into int8 as they are."""
    channels: tuple[int, ...] | None = None
    if old.scale.size > 1:
        channels = tuple(one for one in range(shifted.ndim) if one != old.axis % shifted.ndim)
    highest, lowest = shifted.max(axis=channels, initial=0), shifted.min(axis=channels, initial=0)
    ratio: npt.NDArray[np.float64] = np.maximum(1.0, np.maximum(highest / INT8_HIGHEST, lowest / INT8_LOWEST))
    return ratio.reshape(old.scale.shape)


def _store(
    edits: Edits,
    region: Region,
    values: npt.NDArray[Any],
    shifted: npt.NDArray[np.int64],
    ratio: npt.NDArray[np.float64],
) -> None:
    """Store the region's constant anew: integers rounded to the nearest, floats only where the old range cut them."""
    old = region.parameters
    assert old is not None
    if values.dtype.kind in "iu":
        edits.data(region, np.rint(shifted / old.along(ratio, values.ndim)).astype(np.int8))
        return
    limits, scale = np.iinfo(old.dtype), old.along(old.scale.astype(np.float64), values.ndim)
    zero_point = old.along(old.zero_point.astype(np.float64), values.ndim)
    cut = np.clip(values, (limits.min - zero_point) * scale, (limits.max - zero_point) * scale).astype(values.dtype)
    if not np.array_equal(cut, values):
        edits.data(region, cut)


def _may_have_lost_a_relu(quantizer: ir.Node, positive: set[int]) -> bool:
    """Tell whether a producer may have folded a Relu into a quantizer whose range starts at zero.

    Not where the values are never negative, nor at the network's input, in front of which nothing can have been.
    """
    value = quantizer.inputs[0]
    return value is not None and id(value) not in positive and value.producer() is not None


def _clips_negative(node: ir.Node) -> bool:
    low: Any = reading.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return low is not None and bool(low.size) and float(low.reshape(-1)[0]) >= 0


def _dequantizes_from_zero(node: ir.Node) -> bool:
    zero_point = reading.zero_point(node) if reading.is_dequantize(node) else None
    if zero_point is None or zero_point.dtype.kind not in "iu":
        return False
    return bool((zero_point == np.iinfo(zero_point.dtype).min).all())
