"""The prediction: which kernels TensorRT makes of a Q/DQ network, and which of its Q and DQ survive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import onnx_ir as ir

from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.predict.fusion import Group, fuse, ordered, outside_rules
from trtq.predict.moves import settle
from trtq.predict.network import Activation, Network, Op, read

SOURCE = "TensorRT's documented Q/DQ processing"
VALIDATED_ON = "8.4-8.6 rules; for TensorRT 10 and 11 unverified"
NOT_PREDICTED = (
    "not predicted: layout reformats, FP16 or FP32, tactics, merging of pointwise operators outside convolutions"
)


def predict(model: ir.Model, mode: Literal["explicit"] = "explicit") -> LayerGraph:
    """Return the layers that TensorRT's classic convolution path would make of `model`, which is left as it is.

    mode: "explicit" reads the Q and DQ of the file. Tensors are "int8" or "float" (of a width that depends on the
    builder). Layers of kind "quantize", "dequantize" and "requantize" are the conversions that survive as kernels of
    their own. Near-linear in the graph's size.
    Source: NVIDIA's "Working with quantized types" and verbose build logs of TensorRT 8.4 and 8.5; conversion counts
    and convolution types were checked against published engines of ResNet18 and MobileNetV2.
    """
    network = read(model)
    settle(network)
    ops = ordered(network)
    groups = fuse(ops)
    layers = tuple(_layers(ops, groups))
    found = signals(layers, "predicted")
    if any(not tensor.dims for layer in layers for tensor in (*layer.inputs, *layer.outputs)):
        found = replace(found, traffic_bytes=None)
    return LayerGraph("predicted", SOURCE, layers, found, notes=_notes(network, ops, groups, mode))


def _layers(ops: Sequence[Op], groups: Iterable[Group]) -> Iterator[Layer]:
    groups = list(groups)
    group_at = {group.ops[-1]: group for group in groups}
    int8_uses = {use for group in groups for use in group.int8_uses}
    absorbed = {group.output_quantize for group in groups}
    for op in ops:
        if op in group_at:
            yield _kernel(group_at[op])
        elif op.is_quantize and op not in absorbed:
            yield _surviving_quantize(op)
        elif op.is_dequantize and _survives(op, int8_uses):
            yield _conversion("dequantize", op, op.inputs[0])


def _kernel(group: Group) -> Layer:
    own = set(group.ops)
    inputs = [
        _tensor(activation.producer.inputs[0] if (op, index) in group.int8_uses and activation.producer else activation)
        for op in group.ops
        for index, activation in enumerate(op.inputs)
        if activation.producer not in own
    ]
    outputs = group.ops[-1].outputs if group.output_quantize is None else group.output_quantize.outputs
    return Layer(
        name=" + ".join(name for op in group.ops for name in op.nodes),
        kind=group.head.kind,
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=tuple(_tensor(output) for output in outputs if output is outputs[0] or not output.is_dead()),
        onnx_nodes=tuple(dict.fromkeys(name for op in group.ops for name in op.nodes)),
    )


def _surviving_quantize(op: Op) -> Layer:
    dequantize = op.inputs[0].producer
    if dequantize is None or not dequantize.is_dequantize:
        return _conversion("quantize", op, op.inputs[0])
    layer = _conversion("requantize", op, dequantize.inputs[0])
    return replace(layer, onnx_nodes=tuple(dict.fromkeys((*dequantize.nodes, *op.nodes))))


def _survives(dequantize: Op, int8_uses: set[tuple[Op, int]]) -> bool:
    """Tell whether anything reads the float tensor: a kernel that does not read int8, or the network's output."""
    output = dequantize.outputs[0]
    return output.is_output or any(use not in int8_uses and not use[0].is_quantize for use in output.uses)


def _conversion(kind: str, op: Op, source: Activation) -> Layer:
    nodes = tuple(dict.fromkeys(op.nodes))
    return Layer(nodes[0], kind, (_tensor(source),), (_tensor(op.outputs[0]),), nodes)


def _tensor(activation: Activation) -> Tensor:
    return Tensor(activation.name, activation.dims, activation.dtype)


def _notes(network: Network, ops: Sequence[Op], groups: Iterable[Group], mode: str) -> tuple[str, ...]:
    notes = [f"mode {mode}, validated on {VALIDATED_ON}", NOT_PREDICTED, *network.notes]
    unfolded = sum(group.head.kind == "BatchNormalization" for group in groups)
    if unfolded:
        notes.append(f"{unfolded} BatchNormalization do not follow a convolution directly and run as float kernels")
    if uncovered := outside_rules(ops):
        notes.append(f"outside the rules, tensors around them are not certain: {', '.join(uncovered)}")
    return tuple(notes)
