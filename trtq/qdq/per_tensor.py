"""One int8 weight scale a convolution: the ratios of its channels' scales are multiplied behind it, with the bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trtq.qdq import editing, reading
from trtq.qdq.clean import quantize
from trtq.qdq.float_types import HALF_MAX, INT8_CODES, RANGE_LIMIT, STANDARD_DOMAINS, matching

# FP16 numbers below this have less than their 11 bits: a ratio there would round its whole channel.
SMALLEST_RATIO = float(np.finfo(np.float16).tiny)


@dataclass(frozen=True)
class Left:
    """A convolution that keeps one scale a channel, by the tensor that it writes, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class WeightScales:
    """The convolutions that have one weight scale now, by the tensor that each writes, and those left as they were."""

    changed: tuple[str, ...]
    left: tuple[Left, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return asdict(self)


@dataclass(frozen=True)
class _Weights:
    """Per-channel int8 weights: codes (channels, ...), scales (channels,), both of output channels, axis 0."""

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def scale(self) -> float:
        """The largest scale of a channel that is not all zeros."""
        return float(self.scales[self._alive].max(initial=0)) or float(self.scales.max())

    @property
    def ratios(self) -> npt.NDArray[np.float32]:
        """What each channel's output is multiplied with, (channels,); 1 for a channel of zeros."""
        ratios: npt.NDArray[np.float32] = np.where(self._alive, self.scales / np.float32(self.scale), 1)
        return ratios.astype(np.float32)

    @property
    def _alive(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.codes.reshape(len(self.codes), -1).any(axis=1))


def to_per_tensor(model: ir.Model, ranges: Mapping[str, float], keep: Sequence[str] = ()) -> WeightScales:
    """Give each quantized convolution with per-channel weights one weight scale, in place; same integers.

    conv(x, s_c w) + b becomes conv(x, s w) * (s_c / s) + b with s the largest s_c: equal in real numbers. TensorRT-RTX
    then writes FP16 out of the convolution, where per-channel scales make it write float32.
    In FP16 the convolution's output is up to s / s_c times larger than the channel's own. A convolution keeps its
    scales where neither the integers bound that output (128 s_x s sum|w_c|) nor `ranges` (largest magnitudes by tensor
    name), nor where a glob of `keep` matches its name: it stays float32, and gains nothing.
    Raises `ConfigError` for a glob that matches the name of no node.
    """
    changed, left = [], []
    nodes, taken = tuple(model.graph), editing.names(model)
    kept = matching(nodes, keep)
    for node in nodes:
        weights = _weights(node) if node.op_type == "Conv" and node.domain in STANDARD_DOMAINS else None
        if weights is None:
            continue
        tensor = reading.name(node.outputs[0])
        reason = "it was asked for" if id(node) in kept else _reason(node, weights, ranges.get(tensor))
        if reason is None:
            _rewrite(model, node, weights, taken)
            changed.append(tensor)
        else:
            left.append(Left(tensor, reason))
    if changed:
        passes.RemoveUnusedNodesPass()(model)
    return WeightScales(tuple(changed), tuple(left))


def _weights(node: ir.Node) -> _Weights | None:
    """Return the per-channel int8 weights of a convolution, stored as int8 or as floats behind a QuantizeLinear."""
    dequantizer = None if node.inputs[1] is None else node.inputs[1].producer()
    if dequantizer is None or not reading.is_dequantize(dequantizer) or not reading.is_symmetric_int8(dequantizer):
        return None
    scales = reading.scale(dequantizer)
    axis = dequantizer.attributes["axis"].as_int() if "axis" in dequantizer.attributes else 1
    if scales is None or scales.size < 2 or axis != 0 or scales.dtype != np.float32:
        return None
    codes = reading.constant(dequantizer.inputs[0])
    if codes is None:
        values, quantizer = reading.constant(reading.quantized_tensor(dequantizer)), dequantizer.inputs[0]
        producer = None if quantizer is None else quantizer.producer()
        own = None if producer is None or not reading.is_quantize(producer) else reading.scale(producer)
        if values is None or own is None or not np.array_equal(own, scales):
            return None
        codes = quantize(values, scales, axis)
    return _Weights(codes, scales)


def _reason(node: ir.Node, weights: _Weights, amax: float | None) -> str | None:
    """Return why a convolution must keep one scale a channel, or None."""
    dequantizer = None if node.inputs[0] is None else node.inputs[0].producer()
    scale = reading.scalar_scale(dequantizer) if reading.is_dequantize(dequantizer) and dequantizer else None
    if scale is None:
        return "its input is not quantized"
    bias = reading.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    if bias is None:
        return "its bias is computed"
    if weights.ratios.min() < SMALLEST_RATIO:
        return f"its channels' scales differ by {1 / weights.ratios.min():.3g} times"
    sums = np.abs(weights.codes.astype(np.int64)).sum(axis=tuple(range(1, weights.codes.ndim)))
    bound = INT8_CODES * scale * weights.scale * float(sums.max())
    if bound <= HALF_MAX:
        return None
    if amax is None:
        return f"its output could reach {bound:.4g} in FP16, and its range is not known"
    reached = float(((amax + np.abs(bias)) / weights.ratios).max())
    return None if reached <= RANGE_LIMIT else f"its output would reach {reached:.4g} in FP16"


def _rewrite(model: ir.Model, node: ir.Node, weights: _Weights, taken: set[str]) -> None:
    output = node.outputs[0]
    name = reading.name(output)
    users = list(output.uses())
    places = [index for index, value in enumerate(model.graph.outputs) if value is output]
    old = node.inputs[1].producer()  # type: ignore[union-attr]
    assert old is not None
    label = reading.name(old.outputs[0])
    _one_scale(model, node, weights, editing.unused_name(f"{label}_per_tensor", taken), taken)
    if (weights.ratios == 1).all():
        return
    shape = (-1, *[1] * (weights.codes.ndim - 2))
    steps = [("Mul", "ratios", weights.ratios)]
    bias = reading.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        steps.append(("Add", "bias", bias))
        node.replace_input_with(2, None)
        node.resize_inputs(2)
    output.name = editing.unused_name(f"{name}_unscaled", taken)
    last, anchor = output, node
    for op_type, what, array in steps:
        constant = editing.add_initializer(model, editing.unused_name(f"{name}_{what}", taken), array.reshape(shape))
        value = ir.Value(
            name=editing.unused_name(f"{name}_{op_type.lower()}", taken), shape=output.shape, type=output.type
        )
        step = ir.node(op_type, [last, constant], outputs=[value], name=value.name)
        model.graph.insert_after(anchor, step)
        last, anchor = value, step
    last.name = name
    for use in users:
        use.node.replace_input_with(use.idx, last)
    for index in places:
        model.graph.outputs[index] = last


def _one_scale(model: ir.Model, node: ir.Node, weights: _Weights, label: str, taken: set[str]) -> None:
    """Let a convolution read its integers through a DequantizeLinear of its own with one scale."""
    value = node.inputs[1]
    assert value is not None
    inputs = [
        editing.add_initializer(model, editing.unused_name(f"{label}_{what}", taken), array)
        for what, array in (
            ("int8", weights.codes),
            ("scale", np.asarray(weights.scale, np.float32)),
            ("zero_point", np.asarray(0, np.int8)),
        )
    ]
    output = ir.Value(name=label, shape=value.shape, type=value.type)
    model.graph.insert_before(node, ir.node(reading.DEQUANTIZE, inputs, outputs=[output], name=label))
    node.replace_input_with(1, output)
