"""What the rules on weights share: quantized weights, the axis of their output channels, scales from the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.regions import INT8_HIGHEST, Parameters, Region

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # below it TensorRT refuses a scale as denormal
SHOWN_CHANNELS = 3


@dataclass(frozen=True)
class Weight:
    """A quantized weight: its region, the constant, the operator that reads it and the axis of its output channels."""

    region: Region
    parameters: Parameters
    value: ir.Value
    op: str
    axis: int

    @property
    def name(self) -> str:
        """The constant's name."""
        return reading.name(self.value)


def weights(found: Iterable[Region]) -> Iterator[Weight]:
    """Yield the weights among the regions that can be changed and whose readers agree on the output axis."""
    for region in found:
        value, own = region.constant, region.parameters
        if value is None or own is None or region.obstacle:
            continue
        readers = {_reader(*use) for node in region.nodes for use in _uses(node)}
        if len(readers) == 1 and None not in readers:
            [(op, axis)] = (one for one in readers if one is not None)
            rank = 0 if value.shape is None else len(value.shape)
            if rank > 1:
                yield Weight(region, own, value, op, axis % rank)


def channel_maxima(values: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Return the largest absolute value of each channel."""
    others = tuple(one for one in range(values.ndim) if one != axis)
    maxima: npt.NDArray[np.float64] = np.abs(values).max(axis=others, initial=0).astype(np.float64)
    return maxima


def channel_scales(values: npt.NDArray[Any], axis: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return one scale a channel, its largest weight / 127; a channel of zeros, exact at any scale, gets the widest."""
    scales = channel_maxima(values, axis) / INT8_HIGHEST
    smallest = float(np.finfo(dtype).tiny) if dtype.kind == "f" else SMALLEST_SCALE
    scales[scales < smallest] = scales.max() if scales.max() >= smallest else 1.0
    return scales.astype(dtype)


def dequantized(weight: Weight) -> npt.NDArray[Any] | None:
    """Return the weight's float values: those stored, or what its integers stand for."""
    values, own = reading.constant(weight.value), weight.parameters
    if values is None or values.dtype.kind not in "iu":
        return values
    shifted = values.astype(np.float64) - own.along(own.zero_point.astype(np.float64), values.ndim)
    floats: npt.NDArray[Any] = shifted * own.along(own.scale.astype(np.float64), values.ndim)
    return floats.astype(own.scale.dtype)


def described(channels: npt.NDArray[Any], count: int) -> str:
    """Return channels for a sentence: how many, and the first few."""
    shown = ", ".join(map(str, channels[:SHOWN_CHANNELS])) + (", ..." if len(channels) > SHOWN_CHANNELS else "")
    return f"{len(channels)} of {count} output channels ({shown})"


def output_axis(node: ir.Node) -> int:
    """Return the axis of output channels in the weight of a Conv, ConvTranspose, Gemm or MatMul."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return -1


def output_axes(node: ir.Node) -> Iterator[int]:
    """Yield the axis of output channels for each weighted operator that a DequantizeLinear gives a weight to."""
    for use in _uses(node):
        reader = _reader(*use)
        if reader is not None:
            yield reader[1]


def _uses(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """Yield what reads the floats that a DequantizeLinear writes, behind Identity; nothing for a QuantizeLinear."""
    reached = [] if reading.is_quantize(node) else [node.outputs[0]]
    while reached:
        for use in reached.pop().uses():
            if use.node.op_type == "Identity":
                reached.append(use.node.outputs[0])
            else:
                yield use.node, use.idx


def _reader(reader: ir.Node, index: int) -> tuple[str, int] | None:
    return (reader.op_type, output_axis(reader)) if reader.op_type in reading.WEIGHTED and index == 1 else None
