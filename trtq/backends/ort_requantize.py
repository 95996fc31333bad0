"""Requantizing: a TensorRT-style or float network in the types that ONNX Runtime's integer CPU kernels take.

uint8 activations with a zero point, int8 weights for each output channel, int32 bias, Q/DQ on every operator between
the first and the last quantized layer: onnxruntime.quantization's own quantizer writes it, from the ranges and weight
scales that it is given here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from trtq.backends import onnx_file
from trtq.backends.ort_extremes import Extremes
from trtq.errors import BuildError, MissingBackendError, ModelError
from trtq.qdq import editing, reading
from trtq.qdq.strip import Stripped, WeightScales, strip

try:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
except (ImportError, OSError):
    QDQQuantizer = None

LAYERS = ("Conv", "Gemm", "MatMul")
# What has an integer kernel on the CPU, or moves integers as they are; Relu and Clip go into the kernel before them.
INTEGER_OPERATORS = (
    *LAYERS, "Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "Relu", "Clip", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice", "Pad",
)  # fmt: skip
PER_CHANNEL_OPSET = 13
LOWEST_INT8, HIGHEST_INT8 = -128, 127
# These write integers as they read them, so that what they read and write has one range.
MOVES = ("Concat", "MaxPool", "AveragePool", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
# ONNX Runtime's convolution that copies no windows takes input channels in fours, output channels in sixteens.
INPUTS_AT_ONCE, OUTPUTS_AT_ONCE = 4, 16


def requantize(model: ir.Model, ranges: Extremes) -> onnx.ModelProto:
    """Return `model`, Q/DQ or float, as ONNX Runtime's quantizer writes it for the CPU; `model` is used up.

    ranges: smallest and largest value of each float activation, as `extremes` finds them; a scale in the file bounds
    its tensor's range besides, [-128 scale, 127 scale]. Weights that the file quantizes keep their integers, other
    weights of a Q/DQ network stay float; those of a float network are all quantized, by their largest value in each
    output channel. The one exception: a weight channel so small that its bias would leave int32 gets a larger scale.
    What follows the last quantized layer stays float, but for its own Relu or Clip.
    Raises `ModelError` for a network below opset 13, without a layer to quantize, that `strip` refuses, or with a
    tensor that has no range; `BuildError` where the quantizer fails, `MissingBackendError` without ONNX Runtime.
    """
    if QDQQuantizer is None:
        raise MissingBackendError("ONNX Runtime is not installed; run `pip install trtq[ort]`")
    _check_opset(model)
    stripped = strip(model)
    layers = [node for node in model.graph if _is_layer(node) and (not stripped.layers or node in stripped.layers)]
    if not layers:
        raise ModelError("the network has no Conv, Gemm or MatMul with constant weights to quantize")
    _name(model)
    bounded = _bounded(ranges, stripped)
    weights = dict(stripped.weights)
    for node in layers:
        if _copies_windows(node):
            _pad_channels(model, node, bounded, weights)
    integer = [node for node in _between(model, set(layers)) if node.op_type in INTEGER_OPERATORS and _saturates(node)]
    _check_ranges(integer, bounded)
    _tie(integer, bounded, stripped.activations)
    return _quantized(model, bounded, weights, [str(node.name) for node in integer])


def _check_opset(model: ir.Model) -> None:
    opset = model.graph.opset_imports.get("", 0)
    if opset < PER_CHANNEL_OPSET:
        raise ModelError(
            f"the network has opset {opset}; per-channel weights need {PER_CHANNEL_OPSET}: export it again"
        )


def _is_layer(node: ir.Node) -> bool:
    if node.op_type not in LAYERS or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return False
    weight = reading.constant(node.inputs[1])
    return (
        weight is not None
        and weight.dtype == np.float32
        and weight.ndim > 1
        and not reading.is_constant(node.inputs[0])
    )


def _name(model: ir.Model) -> None:
    """Give every node a name of its own: the quantizer is told of nodes by name."""
    taken = editing.names(model)
    seen: set[str] = set()
    for node in model.graph:
        if not node.name or node.name in seen:
            node.name = editing.unused_name(f"{node.op_type}_{reading.name(node.outputs[0])}", taken)
        seen.add(node.name)


def _bounded(ranges: Extremes, stripped: Stripped) -> dict[str, tuple[float, float]]:
    return {tensor: _range(*both, stripped.activations.get(tensor)) for tensor, both in ranges.items()}


def _range(low: float, high: float, scale: float | None) -> tuple[float, float]:
    """Return the range within what the file's own scale can hold, with zero in it."""
    if scale is not None and low == high == 0:
        return 0.0, HIGHEST_INT8 * scale  # always zero in calibration: the file knows no better than its own range
    if scale is not None:
        low, high = max(low, LOWEST_INT8 * scale), min(high, HIGHEST_INT8 * scale)
    return min(low, 0.0), max(high, 0.0)


def _copies_windows(node: ir.Node) -> bool:
    """Tell whether `node` is a convolution of an image whose channels do not come in fours, such as RGB."""
    value, weight = node.inputs[0], reading.constant(node.inputs[1])
    assert weight is not None
    group = node.attributes.get("group")
    return (
        node.op_type == "Conv"
        and value is not None
        and value.is_graph_input()
        and (group is None or group.as_int() == 1)
        and weight.shape[1] % INPUTS_AT_ONCE != 0
        and weight.shape[0] % OUTPUTS_AT_ONCE == 0
        and max(weight.shape[2:]) > 1
    )


def _pad_channels(
    model: ir.Model, node: ir.Node, ranges: dict[str, tuple[float, float]], weights: dict[str, WeightScales]
) -> None:
    """Give an image channels of zeros, and the convolution weights of zero for them: the same sums, sooner."""
    value, old = node.inputs[0], node.inputs[1]
    array = reading.constant(old)
    assert value is not None and array is not None
    missing = -array.shape[1] % INPUTS_AT_ONCE
    taken = editing.names(model)
    ends = np.zeros(2 * array.ndim, np.int64)
    ends[array.ndim + 1] = missing
    name = editing.unused_name(f"{value.name}_padded", taken)
    sides = editing.add_initializer(model, editing.unused_name(f"{name}_by", taken), ends)
    padded = ir.Value(name=name, type=value.type)
    model.graph.insert_before(node, ir.node("Pad", [value, sides], outputs=[padded], name=name))
    wider = np.pad(array, [(0, missing if axis == 1 else 0) for axis in range(array.ndim)])
    weight = editing.add_initializer(model, editing.unused_name(f"{reading.name(old)}_padded", taken), wider)
    node.replace_input_with(0, padded)
    node.replace_input_with(1, weight)
    if reading.name(old) in weights:
        weights[reading.name(weight)] = weights[reading.name(old)]
    if reading.name(value) in ranges:
        ranges[name] = ranges[reading.name(value)]
    editing.drop_unused(model, old)


def _between(model: ir.Model, layers: set[ir.Node]) -> list[ir.Node]:
    """Return the layers, what stands between two of them, and a Relu or Clip behind one, in graph order."""
    before, after = set(layers), set(layers)
    for node in model.graph:
        if any(value is not None and value.producer() in before for value in node.inputs):
            before.add(node)
    for node in reversed(model.graph):
        if any(user in after for value in node.outputs for user, _ in value.uses()):
            after.add(node)
    return [
        node
        for node in model.graph
        if node in layers
        or (node in before and node in after and not _is_layer(node))
        or (node.op_type in ("Relu", "Clip") and node.inputs[0] is not None and node.inputs[0].producer() in layers)
    ]


def _saturates(node: ir.Node) -> bool:
    """Tell whether `node` is no Clip with zero outside its bounds: only others does saturation to a range replace."""
    if node.op_type != "Clip":
        return True
    bounds = [reading.constant(value) for value in node.inputs[1:3] if value is not None]
    if any(one is None for one in bounds):
        return False
    low = bounds[0] if len(node.inputs) > 1 and node.inputs[1] is not None else None
    high = bounds[-1] if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return (low is None or float(low) <= 0) and (high is None or float(high) >= 0)


def _check_ranges(nodes: list[ir.Node], ranges: Mapping[str, tuple[float, float]]) -> None:
    for node in nodes:
        for value in (node.inputs[0], node.outputs[0]):
            if value is None or value.name in ranges or reading.is_constant(value):
                continue
            if value.dtype == ir.DataType.FLOAT:
                raise ModelError(f"tensor '{reading.name(value)}' has no range; calibrate the whole network")


@dataclass
class _Group:
    """Tensors that get one range; `scale` is the one that the file gives some of them, None where it gives none."""

    tensors: list[str]
    scale: float | None


def _tie(nodes: list[ir.Node], ranges: dict[str, tuple[float, float]], scales: Mapping[str, float]) -> None:
    """Give what a Concat joins and its result one range, unless the file's own scales differ: a copy does not round."""
    groups = {tensor: _Group([tensor], scales.get(tensor)) for tensor in ranges}
    for node in nodes:
        if node.op_type not in MOVES:
            continue
        output = reading.name(node.outputs[0])
        for tensor in map(reading.name, node.inputs if node.op_type == "Concat" else node.inputs[:1]):
            if tensor in groups:
                _join(groups, groups[tensor], groups[output])
    for group in {id(one): one for one in groups.values() if len(one.tensors) > 1}.values():
        lows, highs = zip(*(ranges[tensor] for tensor in group.tensors), strict=True)
        ranges.update(dict.fromkeys(group.tensors, (min(lows), max(highs))))


def _join(groups: dict[str, _Group], one: _Group, other: _Group) -> None:
    if one is other or (one.scale is not None and other.scale is not None and one.scale != other.scale):
        return
    larger, smaller = (one, other) if len(one.tensors) >= len(other.tensors) else (other, one)
    larger.tensors += smaller.tensors
    larger.scale = smaller.scale if larger.scale is None else larger.scale
    groups.update(dict.fromkeys(smaller.tensors, larger))


def _quantized(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    weights: Mapping[str, WeightScales],
    nodes: list[str],
) -> onnx.ModelProto:
    known = [name for name in weights if name in model.graph.initializers]
    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    try:
        quantizer = QDQQuantizer(
            ir.to_proto(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=INTEGER_OPERATORS,
            extra_options={
                "TensorQuantOverrides": {name: list(_overrides(weights[name])) for name in known},
                "WeightSymmetric": True,
            },
        )
        result: onnx.ModelProto = quantizer.quantize_model()
    except Exception as error:  # the quantizer's errors share no base
        raise BuildError(f"ONNX Runtime's quantizer failed ({onnx_file.one_line(str(error))})") from error
    return result


def _overrides(scales: WeightScales) -> Iterator[dict[str, Any]]:
    """Yield a weight's scales in the quantizer's own form, a dict for each channel."""
    for scale in scales.values:
        axis = {} if scales.axis is None else {"axis": scales.axis}
        yield {"quant_type": QuantType.QInt8, "scale": scale, "zero_point": np.int8(0), **axis}
