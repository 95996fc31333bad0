"""One engine of a comparison: its layers, its name, and what its ONNX file tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from trtq.compare.causes import Edges
from trtq.compare.remedies import Advice
from trtq.compare.sides import Side, carries
from trtq.layers import kinds
from trtq.layers.graph import Layer

COPIED = "Reformatted "


class View:
    """An engine with what words about it need; raises `ModelError` for an ONNX file that cannot be read."""

    def __init__(self, side: Side, name: str, onnx: Path | None) -> None:
        self.side = side
        self.graph = side.graph
        self.name = name
        self.edges = None if onnx is None else Edges.read(onnx)
        self.advice = Advice(name, onnx)
        self._sources: dict[str, str] = {}
        for layer in self.graph.layers:
            copies = carries(layer) and not kinds.is_conversion(layer)
            if copies and len(layer.inputs) == len(layer.outputs) == 1 and layer.outputs[0].name.startswith(COPIED):
                read = layer.inputs[0].name
                self._sources[layer.outputs[0].name] = self._sources.get(read, read)

    def layers(self, indices: Iterable[int]) -> list[Layer]:
        """Return layers by position."""
        return [self.graph.layers[index] for index in indices]

    def traced(self, indices: Iterable[int]) -> list[Layer]:
        """Return layers by position, their inputs under the names that they had before TensorRT copied them."""
        return [self._traced(layer) for layer in self.layers(indices)]

    def before(self, indices: Sequence[int]) -> list[Layer]:
        """Return the layers that write what these read."""
        return self._around(indices, self.side.producers)

    def after(self, indices: Sequence[int]) -> list[Layer]:
        """Return the layers that read what these write."""
        return self._around(indices, self.side.consumers)

    def _traced(self, layer: Layer) -> Layer:
        inputs = tuple(replace(tensor, name=self._sources.get(tensor.name, tensor.name)) for tensor in layer.inputs)
        return replace(layer, inputs=inputs)

    def _around(self, indices: Sequence[int], near: Sequence[Sequence[int]]) -> list[Layer]:
        return self.layers(dict.fromkeys(other for index in indices for other in near[index]))


Views = tuple[View, View]
