"""What stands behind a difference: the ONNX tensors and quantizers of the layers concerned."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from trtq.errors import ModelError
from trtq.layers import kinds
from trtq.layers.graph import Layer, Tensor

# A quantizer behind these sees the same values: TensorRT moves it through them.
TRANSPARENT = frozenset(
    {"Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
COMPILER_MADE = ("__my", "Reformatted ")
NAMES_SHOWN = 3
_ABOUT_SCALES = re.compile(r"quantize|_D?Q$", re.IGNORECASE)
_DEQUANTIZES = re.compile(r"dequantize|_DQ$", re.IGNORECASE)
# What TensorRT appends to an ONNX tensor's name.
_COMPILER_SUFFIX = re.compile(r"(?:\.\d+)?(?:_\d+)?_myl\d+$")


@dataclass(frozen=True)
class Cause:
    """Tensors (without the ONNX file: what is known of them), what their quantizers take, who reads them as float."""

    tensors: tuple[str, ...]
    quantized: tuple[str, ...] = ()
    float_readers: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The tensors, as one string."""
        return ", ".join(self.tensors)


class Edges:
    """Who makes and who reads each tensor of an ONNX file, by node name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = {node.name or f"node_of_{node.output[0]}": node for node in graph.node if node.output}
        self._names = {node.output[0]: name for name, node in self._nodes.items()}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes.values():
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(node)
        self._scales = dict(_scalars(graph))

    @classmethod
    def read(cls, path: Path) -> Edges:
        """Read the edges of an ONNX file, not its weights; raises `ModelError`."""
        try:
            return cls(onnx.load(str(path), format="protobuf", load_external_data=False).graph)
        except (OSError, DecodeError) as error:
            raise ModelError(f"{path}: cannot be read as an ONNX file ({error})") from error

    def written_twice(self, nodes: Iterable[str]) -> Cause:
        """Return the tensors that the nodes make and that leave them in more than one form, and who quantizes them."""
        inside = set(nodes)
        members = (self._nodes[name] for name in dict.fromkeys(nodes) if name in self._nodes)
        made = [tensor for node in members if node.op_type not in QUANTIZERS | TRANSPARENT for tensor in node.output]
        ends = {tensor: [end for end in self._ends(tensor) if self._leaves(end, inside)] for tensor in made}
        # Quantizers of one scale write one copy between them.
        twice = [tensor for tensor in made if len(set(map(self._copy, ends[tensor]))) > 1]
        return Cause(
            tensors=tuple(twice),
            quantized=_unique(end.input[0] for tensor in twice for end in ends[tensor] if _quantizes(end)),
            float_readers=_unique(self._name(end) for tensor in twice for end in ends[tensor] if not _quantizes(end)),
        )

    def activations(self, nodes: Iterable[str]) -> Cause:
        """Return the first inputs of the nodes that are no quantizers and whose input no other of them makes."""
        members = [self._nodes[name] for name in nodes if name in self._nodes]
        made = {tensor for node in members if node.op_type not in QUANTIZERS for tensor in node.output}
        inputs = [node.input[0] for node in members if node.op_type not in QUANTIZERS and node.input]
        return Cause(_unique(self._unquantized(tensor) for tensor in inputs if tensor not in made))

    def _unquantized(self, tensor: str) -> str:
        while (maker := self._nodes.get(self._names.get(tensor, ""))) and maker.op_type in QUANTIZERS:
            tensor = maker.input[0]
        return tensor

    def _name(self, node: onnx.NodeProto) -> str:
        return self._names[node.output[0]]

    def _leaves(self, end: onnx.NodeProto, inside: set[str]) -> bool:
        return _quantizes(end) or self._name(end) not in inside

    def _copy(self, end: onnx.NodeProto) -> bytes | str:
        return self._scales.get(end.input[1], self._name(end)) if _quantizes(end) else "float"

    def _ends(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that read a tensor, through those that only move it; each once."""
        waiting, seen = [tensor], {tensor}
        while waiting:
            for node in self._readers.get(waiting.pop(), ()):
                if node.op_type not in TRANSPARENT:
                    if node.output[0] not in seen:
                        seen.add(node.output[0])
                        yield node
                else:
                    waiting += [output for output in node.output if output not in seen]
                    seen.update(node.output)


def double_write(
    layers: Sequence[Layer], makers: Sequence[Layer], readers: Sequence[Layer], edges: Edges | None
) -> Cause:
    """Return the tensor that the layers write twice; `makers` and `readers` are the layers before and after them."""
    if edges is not None:
        cause = edges.written_twice(_nodes(layers))
        if cause.tensors:
            return cause
    before = set(_nodes(makers))
    made = [name for name in _nodes(layers) if name not in before and not _ABOUT_SCALES.search(name)]
    tensors = _named(tensor for layer in layers for tensor in layer.outputs)
    # A convolution's row lists the quantizers of its weights, not of what it reads.
    rounding = [layer for layer in (*layers, *readers) if not kinds.is_compute(layer)]
    return Cause(tensors or (f"output of {shortened(made, ' or ')}",), tuple(filter(is_quantizer, _nodes(rounding))))


def input_tensors(layers: Sequence[Layer], edges: Edges | None) -> Cause:
    """Return the tensors that the layers read: by ONNX name where the file, or the engine, tells them."""
    if edges is not None:
        cause = edges.activations(_nodes(layers))
        if cause.tensors:
            return cause
    named = _named(tensor for layer in layers for tensor in layer.inputs)
    nodes = [name for name in _nodes(layers) if not _ABOUT_SCALES.search(name)]
    return Cause(named or tuple(f"input of {name}" for name in nodes[:1]))


def named_tensors(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the tensors that the layers read, or else write, by the names that are not the compiler's own."""
    read = _named(tensor for layer in layers for tensor in layer.inputs)
    return read or _named(tensor for layer in layers for tensor in layer.outputs)


def shortened(names: Sequence[str], joint: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    shown = joint.join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def is_quantizer(name: str) -> bool:
    """Tell by its name whether an ONNX node quantizes."""
    return _ABOUT_SCALES.search(name) is not None and _DEQUANTIZES.search(name) is None


def _quantizes(node: onnx.NodeProto) -> bool:
    return node.op_type == "QuantizeLinear"


def _scalars(graph: onnx.GraphProto) -> Iterator[tuple[str, bytes]]:
    for tensor in graph.initializer:
        if math.prod(tensor.dims) == 1:
            yield tensor.name, numpy_helper.to_array(tensor).tobytes()
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and math.prod(attribute.t.dims) == 1:
                yield node.output[0], numpy_helper.to_array(attribute.t).tobytes()


def _named(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    names = (tensor.name for tensor in tensors if not tensor.name.startswith(COMPILER_MADE))
    return _unique(_COMPILER_SUFFIX.sub("", name) for name in names)


def _nodes(layers: Iterable[Layer]) -> tuple[str, ...]:
    return _unique(name for layer in layers for name in layer.onnx_nodes)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
