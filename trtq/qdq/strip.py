"""Strip: the float network behind a Q/DQ one, and the scales that its quantizers had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.errors import ModelError
from trtq.qdq import editing, pairs, reading
from trtq.qdq.clean import store_int8_weights


@dataclass(frozen=True)
class WeightScales:
    """The scales of one weight: float32 (channels,) along `axis`, or of one element where `axis` is None."""

    axis: int | None
    values: npt.NDArray[Any]


@dataclass(frozen=True)
class Stripped:
    """What a network's quantizers were.

    activations: the largest scale of each quantized tensor. weights: by name of the initializer that now holds the
    weight's float values, integer times scale. layers: the nodes that read such a weight, in graph order.
    """

    activations: Mapping[str, float]
    weights: Mapping[str, WeightScales]
    layers: tuple[ir.Node, ...]


def strip(model: ir.Model) -> Stripped:
    """Take every Q/DQ node out of `model`, in place; weights stay at exactly the values that their integers stand for.

    Raises `ModelError` for what is not symmetric int8 with constant positive scales, one for each activation, or is
    not float32 besides.
    """
    store_int8_weights(model)
    activations = _activations(model)
    for node in list(model.graph):
        if reading.is_quantize(node):
            pairs.remove(model, node)
    weights: dict[str, WeightScales] = {}
    readers: set[ir.Node] = set()
    taken = editing.names(model)
    for node in list(model.graph):
        if reading.is_dequantize(node):
            value, scales = _weight(model, node, taken)
            readers.update(use.node for use in value.uses())
            weights[reading.name(value)] = scales
    return Stripped(activations, weights, tuple(node for node in model.graph if node in readers))


def _activations(model: ir.Model) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in model.graph:
        if reading.is_quantize(node):
            _check(node)
            scale = reading.scalar_scale(node)
            tensor = reading.name(node.inputs[0])
            if scale is None:
                raise ModelError(
                    f"tensor '{tensor}': its scales are one for each channel; activations take one for all"
                )
            found[tensor] = max(found.get(tensor, 0.0), scale)
    return found


def _weight(model: ir.Model, node: ir.Node, taken: set[str]) -> tuple[ir.Value, WeightScales]:
    """Replace a DQ of constant integers by their float values."""
    _check(node)
    integers, scales = reading.constant(node.inputs[0]), reading.scale(node)
    if integers is None or scales is None:
        raise ModelError(f"{reading.label(node)}: reads int8 that neither a quantizer nor a constant gives")
    axis = None
    if scales.size > 1:
        axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 1) % integers.ndim
        if scales.ndim != 1 or scales.size != integers.shape[axis]:
            raise ModelError(f"{reading.label(node)}: {scales.size} scales fit no axis of the weight; export it again")
    along = scales.reshape([-1 if one == axis else 1 for one in range(integers.ndim)])
    name = editing.unused_name(f"{reading.name(node.outputs[0])}_float", taken)
    value = editing.add_initializer(model, name, integers.astype(np.float32) * along)
    node.outputs[0].replace_all_uses_with(value)
    pairs.drop(model, node)
    return value, WeightScales(axis, scales.reshape(-1))


def _check(node: ir.Node) -> None:
    tensor = reading.name(reading.quantized_tensor(node)) or reading.label(node)
    scale = reading.scale(node)
    if scale is None or not np.isfinite(scale).all() or not (scale > 0).all():
        raise ModelError(f"tensor '{tensor}': its scale is not a positive constant; `trtq lint` says what to do")
    if scale.dtype != np.float32:
        raise ModelError(f"tensor '{tensor}': its scale is {scale.dtype}; give the float32 Q/DQ network")
    if not reading.is_symmetric_int8(node):
        raise ModelError(
            f"tensor '{tensor}': is not quantized to symmetric int8, TensorRT's kind; `trtq lint` says what to do"
        )
