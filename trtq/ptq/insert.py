"""Q/DQ insertion into a float network, where NVIDIA's placement recommendations want it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq import qdq
from trtq.errors import ModelError
from trtq.ptq.placement import QUANTIZED, Site, activations, sites
from trtq.ptq.ranges import max_of
from trtq.qdq import editing, reading
from trtq.qdq.clean import quantize

INT8_MAX = 127
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # below it TensorRT refuses a scale as denormal


@dataclass(frozen=True)
class Insertion:
    """How many Q/DQ pairs were put on activations, and the nodes that stay float with the reason."""

    pairs: int
    left_float: tuple[str, ...]


def insert(model: ir.Model, amax: Mapping[str, float], exclude: Sequence[str] = ()) -> Insertion:
    """Put Q/DQ pairs and int8 weights into a float32 network, in place.

    The data input of every Conv, Gemm and MatMul with a constant weight is quantized per tensor, its weight per output
    channel; so is the residual input of an Add. Readers of one tensor share one pair. scale = amax / 127.
    amax: largest absolute value by tensor name; a tensor that is all zero has no scale, and what reads it stays float.
    exclude: globs over node names that stay float.
    Source: the placement recommendations in NVIDIA's "Working with quantized types".
    Raises `ModelError` for a network below opset 13, already quantized, or not float32, and for a missing or
    non-finite range; `ConfigError` for a glob that matches no node.
    """
    found = sites(model, exclude)
    scales = {site.tensor: _scale(site.tensor, amax) for site in found}
    writer = _Writer(model)
    left = [
        f"{reading.label(site.node)}: tensor '{site.tensor}' is all zero" for site in found if not scales[site.tensor]
    ]
    for site in found:
        if not scales[site.tensor]:
            continue
        if site.node.op_type in QUANTIZED and not writer.quantize_weight(site.node):
            left.append(f"{reading.label(site.node)}: its weight is all zero")
            continue
        writer.quantize_input(site, scales[site.tensor])
    return Insertion(len(writer.pairs), tuple(left))


def quantize_float(
    source: Path, images: Iterable[npt.NDArray[Any]], target: Path, exclude: Sequence[str] = ()
) -> Insertion:
    """Quantize the float network in `source` by the maxima over `images`, and write it to `target`.

    images: float32 batches (n, ...). Raises what `collect_max` and `insert` raise, and `OutputError`.
    """
    model = qdq.load(source)
    qdq.clean(model)
    amax = max_of(model, activations(model, exclude), images)
    inserted = insert(model, amax, exclude)
    qdq.save(model, target)
    return inserted


def _scale(tensor: str, amax: Mapping[str, float]) -> float:
    """Return the tensor's scale, 0 where it is all zero."""
    if tensor not in amax:
        raise ModelError(f"tensor '{tensor}' has no range; collect the ranges of all that `activations` lists")
    if not math.isfinite(amax[tensor]) or amax[tensor] < 0:
        raise ModelError(f"tensor '{tensor}' has the range {amax[tensor]}; a range is finite and not negative")
    scale = amax[tensor] / INT8_MAX
    return scale if scale >= SMALLEST_SCALE else 0.0


class _Writer:
    """Adds pairs and int8 weights to one graph, each tensor and weight once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.taken = editing.names(model)
        self.pairs: dict[ir.Value, ir.Value] = {}
        self.weights: dict[tuple[ir.Value | None, int], ir.Value | None] = {}

    def quantize_input(self, site: Site, scale: float) -> None:
        """Make the site read its tensor through the tensor's Q/DQ pair."""
        value = site.node.inputs[site.index]
        assert value is not None
        if value not in self.pairs:
            self.pairs[value] = self._pair(value, scale, site.node)
        site.node.replace_input_with(site.index, self.pairs[value])

    def quantize_weight(self, node: ir.Node) -> bool:
        """Store the node's weight as int8 with a DQ; return False for a weight that is all zero."""
        axis = _output_axis(node)
        old = reading.source(node.inputs[1])
        if (old, axis) not in self.weights:
            self.weights[(old, axis)] = self._weight(node, axis)
        new = self.weights[(old, axis)]
        if new is not None:
            replaced = node.inputs[1]
            node.replace_input_with(1, new)
            editing.drop_unused(self.model, replaced)
        return new is not None

    def _pair(self, value: ir.Value, scale: float, reader: ir.Node) -> ir.Value:
        name = reading.name(value)
        places = [
            self._constant(f"{name}_scale", np.asarray(scale, np.float32)),
            self._constant(f"{name}_zero_point", np.asarray(0, np.int8)),
        ]
        quantize_node = ir.node(reading.QUANTIZE, [value, *places])
        quantized = self._put(quantize_node, reader, f"{name}_quantized", ir.DataType.INT8, value.shape)
        dequantize_node = ir.node(reading.DEQUANTIZE, [quantized, *places])
        return self._put(dequantize_node, reader, f"{name}_dequantized", ir.DataType.FLOAT, value.shape)

    def _weight(self, node: ir.Node, axis: int) -> ir.Value | None:
        values = reading.constant(node.inputs[1])
        assert values is not None
        if not np.isfinite(values).all():
            raise ModelError(f"{reading.label(node)}: its weight holds NaN or infinity; check the checkpoint")
        channels = np.abs(values).max(axis=tuple(one for one in range(values.ndim) if one != axis))
        scales = (channels / INT8_MAX).astype(np.float32)
        if scales.max() < SMALLEST_SCALE:
            return None
        # A channel of zeros is exact at any scale; TensorRT wants a positive one.
        scales[scales < SMALLEST_SCALE] = scales.max()
        name = reading.name(reading.source(node.inputs[1]))
        inputs = [
            self._constant(f"{name}_int8", quantize(values, scales, axis)),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(scales.size, np.int8)),
        ]
        dequantize_node = ir.node(reading.DEQUANTIZE, inputs, attributes={"axis": axis})
        shape = ir.Shape(values.shape)
        return self._put(dequantize_node, node, f"{name}_dequantized", ir.DataType.FLOAT, shape)

    def _constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        return editing.add_initializer(self.model, editing.unused_name(name, self.taken), array)

    def _put(self, node: ir.Node, reader: ir.Node, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        """Put a node before the first node that reads it (nodes are visited in graph order) and return its output."""
        node.name = editing.unused_name(name, self.taken)
        output = node.outputs[0]
        output.name, output.type, output.shape = node.name, ir.TensorType(dtype), shape
        self.model.graph.insert_before(reader, node)
        return output


def _output_axis(node: ir.Node) -> int:
    """Return the weight's axis of output channels: 0 for Conv and for Gemm with transB, the last one otherwise."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    return len(weight.shape) - 1
