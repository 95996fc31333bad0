"""The prediction: which kernels TensorRT makes of a network, which Q and DQ survive, and which tensors are int8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import onnx_ir as ir

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.predict.confidence import Confidence, Judge, is_disputed
from trtq.predict.fusion import Group, fuse, ordered, outside_rules
from trtq.predict.implicit import Implicit, float_layers, strip
from trtq.predict.moves import settle
from trtq.predict.network import Activation, Network, Op, read
from trtq.qdq.remembering import without_collection
from trtq.qdq.uncast import has_cast_pairs, without_casts

Mode = Literal["fp32", "fp16", "ptq", "explicit"]
MODES: tuple[Mode, ...] = get_args(Mode)
Predicted = Literal["int8", "float", "unknown"]
SOURCE = "TensorRT's documented Q/DQ processing"
VALIDATED_ON = (
    "engines of TensorRT 8.4 and 8.5 (ResNet18, MobileNetV2), rules of 8.4-8.6; for TensorRT 10 and 11 unverified"
)
FUSIONS_VALIDATED_ON = "float engines of TensorRT 8.4 and 10.1 (ResNet18, MobileNetV2), for which operators fuse"
WITHOUT_QDQ = {
    "fp32": ": a float32 engine, the file's Q and DQ left out",
    "fp16": ": a float engine, FP16 wherever TensorRT chooses it, the file's Q and DQ left out",
    "ptq": ": implicit PTQ, the file's Q and DQ left out",
}
NOT_VALIDATED = "not validated: no reference engine"
NOT_PREDICTED = (
    "layout reformats",
    "FP16 or FP32",
    "tactics",
    "merging of pointwise operators outside convolutions",
    "merging of convolutions that read one tensor",
    "speed",
)
# Targets whose engines the rules were checked against; elsewhere they are by analogy.
CHECKED_TARGETS = (None, "trt8.5", "trt8.6")
WITHOUT_IMPLICIT_PTQ = ("trt11", "rtx")
# Operators that cannot write into a part of a larger tensor (pass "Generating copy ... does not support striding").
NOT_STRIDED = frozenset({"Resize", "Upsample", "Concat"})


@dataclass(frozen=True)
class Prediction:
    """What is predicted: the layers, and the type of each ONNX tensor that a kernel writes, each with its confidence.

    Tensors inside a fused kernel are written by nobody and left out. `layer_confidence` is in the layers' order.
    """

    mode: Mode
    validated_on: str
    graph: LayerGraph
    tensors: Mapping[str, Predicted]
    confidence: Mapping[str, Confidence]
    layer_confidence: tuple[Confidence, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "origin": self.graph.origin,
            "mode": self.mode,
            "validated_on": self.validated_on,
            "conversions": self.graph.signals.conversions,
            "tensors": dict(self.tensors),
            "confidence": dict(self.confidence),
            "layers": [
                _layer_json(layer, own) for layer, own in zip(self.graph.layers, self.layer_confidence, strict=True)
            ],
            "not_predicted": list(NOT_PREDICTED),
            "notes": list(self.graph.notes),
        }


def predict(model: ir.Model, mode: Mode = "explicit") -> LayerGraph:
    """Return the layers of `predict_types` alone."""
    return predict_types(model, mode).graph


def predict_types(model: ir.Model, mode: Mode = "explicit", *, target: str | None = None) -> Prediction:
    """Return what TensorRT's classic convolution path would make of `model`, which is left as it is.

    mode: "explicit" reads the Q and DQ of the file; "fp32", "fp16" and "ptq" (implicit PTQ) leave them out. Tensors are
    "int8" or "float" (of a width that depends on the builder). Layers of kind "quantize", "dequantize" and "requantize"
    are the conversions that survive as kernels of their own, and "copy" brings a tensor into a Concat's result.
    target: as the linter's; a later TensorRT than the rules were checked on makes every statement less certain.
    Near-linear in the graph's size. Raises `ConfigError` for an unknown mode, and for implicit PTQ where the target has
    none.
    Source: NVIDIA's "Working with quantized types" and verbose build logs of TensorRT 8.4 and 8.5; conversion counts
    and convolution types were checked against published engines of ResNet18 and MobileNetV2.
    """
    _check(mode, target)
    with without_collection():
        return _predicted(model, mode, sure=mode == "explicit" and target in CHECKED_TARGETS)


def _predicted(model: ir.Model, mode: Mode, *, sure: bool) -> Prediction:
    network = read(without_casts(model) if has_cast_pairs(model) else model)
    if mode == "explicit":
        settle(network)
    else:
        strip(network)
    ops = ordered(network)
    groups = fuse(ops)
    layers = tuple(_with_copies(_layers(network, ops, groups, mode)))
    found = signals(layers, "predicted")
    if any(not tensor.dims for layer in layers for tensor in (*layer.inputs, *layer.outputs)):
        found = replace(found, traffic_bytes=None)
    graph = LayerGraph("predicted", SOURCE, layers, found, notes=_notes(network, ops, groups, mode))
    return _judged(mode, _known(mode), graph, groups, Judge(sure=sure, is_static=network.is_static))


def _check(mode: str, target: str | None) -> None:
    if mode not in MODES:
        raise ConfigError(f"mode '{mode}' is not known{did_you_mean(mode, MODES) or '; known are ' + ', '.join(MODES)}")
    if mode == "ptq" and target in WITHOUT_IMPLICIT_PTQ:
        raise ConfigError(
            f"{target} has no implicit PTQ; put Q/DQ into the file (`trtq ptq`) and predict with mode qat"
        )


def _layers(network: Network, ops: Sequence[Op], groups: Sequence[Group], mode: Mode) -> Iterator[Layer]:
    if mode == "ptq":
        return Implicit(network, groups).layers()
    if mode == "explicit":
        return _explicit(ops, groups)
    return float_layers(groups, "float32" if mode == "fp32" else "float")


def _explicit(ops: Sequence[Op], groups: Sequence[Group]) -> Iterator[Layer]:
    group_at = {group.last: group for group in groups}
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
    return Layer(
        name=" + ".join(group.nodes),
        kind=group.head.kind,
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=tuple(map(_tensor, group.results)),
        onnx_nodes=group.nodes,
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


def _with_copies(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield `layers`, a copy before each Concat for every input that its producer cannot write in place there.

    That is what comes from a Resize, another Concat or the network's input, and what another Concat holds already.
    """
    kinds: dict[str, str] = {}
    held: set[str] = set()
    for layer in layers:
        inputs = list(layer.inputs)
        for place, tensor in enumerate(inputs if layer.kind == "Concat" else ()):
            if tensor.name in held or kinds.get(tensor.name, "") in ("", *NOT_STRIDED):
                inputs[place] = replace(tensor, name=f"{tensor.name} copy")
                yield Layer(f"{tensor.name} copy", "copy", (tensor,), (inputs[place],))
            held.add(tensor.name)
        kinds.update((output.name, layer.kind) for output in layer.outputs)
        yield replace(layer, inputs=tuple(inputs))


def _judged(mode: Mode, validated_on: str, graph: LayerGraph, groups: Sequence[Group], judge: Judge) -> Prediction:
    types: dict[str, DType] = {}
    for layer in graph.layers:
        types.update((tensor.name, tensor.dtype) for tensor in (*layer.inputs, *layer.outputs))
    tensors: dict[str, Predicted] = {}
    confidence: dict[str, Confidence] = {}
    results: dict[str, Confidence] = {}
    for group in groups:
        for name, result in zip(group.last.written, group.results, strict=False):
            own = judge.confidence(group, result)
            results[result.name] = confidence[name] = own
            tensors[name] = "unknown" if own == "unknown" else "int8" if types.get(result.name) == "int8" else "float"
    return Prediction(mode, validated_on, graph, tensors, confidence, judge.of_layers(graph.layers, results))


def _layer_json(layer: Layer, confidence: Confidence) -> dict[str, Any]:
    return {
        "kind": layer.kind,
        "onnx_nodes": list(layer.onnx_nodes),
        "reads": [tensor.dtype for tensor in layer.inputs],
        "writes": [tensor.dtype for tensor in layer.outputs],
        "confidence": confidence,
    }


def _known(mode: Mode) -> str:
    """Return the range that a mode's predictions were validated on."""
    if mode == "explicit":
        return VALIDATED_ON
    return NOT_VALIDATED if mode == "ptq" else FUSIONS_VALIDATED_ON


def _notes(network: Network, ops: Sequence[Op], groups: Iterable[Group], mode: Mode) -> tuple[str, ...]:
    validated = _known(mode) if mode == "ptq" else f"validated on {_known(mode)}"
    about = f"mode {mode}{WITHOUT_QDQ.get(mode, '')}, {validated}"
    notes = [about, f"not predicted: {', '.join(NOT_PREDICTED)}", *network.notes]
    if mode == "explicit" and not any(op.is_quantize or op.is_dequantize or op.int8_weight for op in ops):
        notes.append("the file holds no Q and no DQ, so nothing runs in int8; `trtq ptq` puts them in")
    unfolded = sum(group.head.kind == "BatchNormalization" for group in groups)
    if unfolded:
        notes.append(f"{unfolded} BatchNormalization do not follow a convolution directly and run as float kernels")
    if disputed := sum(map(is_disputed, ops)):
        notes.append(
            f"{disputed} Add join a dequantized tensor with an activated one: whether TensorRT fuses them is disputed, "
            "and conversions are counted as if it did not"
        )
    if uncovered := outside_rules(ops):
        notes.append(f"outside the rules, tensors around them are not certain: {', '.join(uncovered)}")
    return tuple(notes)
