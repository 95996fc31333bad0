"""One engine of an alignment: which layers compute, what stands between them, and what each looks like."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain

from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph, Tensor

REFORMATS = ("reformat", "myelinreformat", "copy", "cast")
OUTPUT_COPY = "Reformatting CopyNode for Output Tensor"
# Above this many pairs of makers and readers around one layer, it ties nothing together.
MAX_CROSSINGS = 1024
COLOR_DEPTHS = 3

# Which dimensions of a tensor tell what it is.
ALL, ALL_BUT_BATCH, CHANNELS = slice(None), slice(1, None), slice(1, 2)

Dims = tuple[int, ...]


class Side:
    """A graph with what matching asks of it.

    `mains` are the layers that compute; the others (conversions, reformats, copies, layers without a kernel) only
    carry tensors between them. `makers` and `readers` are the mains before and after each layer, through those.
    """

    def __init__(self, graph: LayerGraph, told: slice = ALL) -> None:
        """`told`: the part of a tensor's dimensions that tells, because the other engine's input shares it."""
        self.graph = graph
        self.told = told
        self.layers = graph.layers
        self.names = [frozenset(layer.onnx_nodes) for layer in self.layers]
        self.producers, self.consumers = neighbours(self.layers)
        self.is_main = [not carries(layer) for layer in self.layers]
        self.makers = self._through(self.producers, range(len(self.layers)))
        self.readers = self._through(self.consumers, range(len(self.layers) - 1, -1, -1))
        self.loose = [(kinds.family(layer), self.dims(layer.outputs)) for layer in self.layers]

    def dims(self, tensors: Iterable[Tensor]) -> frozenset[Dims]:
        """Return the dimensions that tensors have, as far as they tell.

        As a set: the same tensor written twice has the same dimensions as the tensor written once.
        """
        return frozenset(tensor.dims[self.told] for tensor in tensors)

    def mains(self) -> Iterable[int]:
        """Return the layers that compute, in execution order."""
        return (index for index, main in enumerate(self.is_main) if main)

    def is_entry(self, index: int) -> bool:
        """Tell whether the layer only carries, and what it carries is an input of the network."""
        return not self.is_main[index] and not self.producers[index] and bool(self.layers[index].inputs)

    def _through(self, near: Sequence[Sequence[int]], order: Iterable[int]) -> list[tuple[int, ...]]:
        """Return each layer's mains in one direction; `order` has what is near before what it is near to."""
        found: list[tuple[int, ...]] = [()] * len(self.layers)
        crossings = [len(self.producers[i]) * len(self.consumers[i]) for i in range(len(self.layers))]
        for index in order:
            steps = (
                (other,) if self.is_main[other] else found[other] if crossings[other] <= MAX_CROSSINGS else ()
                for other in near[index]
            )
            found[index] = tuple(dict.fromkeys(chain.from_iterable(steps)))[:MAX_CROSSINGS]
        return found


def neighbours(layers: Sequence[Layer]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return each layer's producers and consumers by position; a name written again is a new tensor from there on.

    Layers that write only parts of what a layer reads, under one name, are all its producers.
    """
    whole: dict[tuple[str, Dims], int] = {}
    parts: dict[str, list[int]] = {}
    producers: list[tuple[int, ...]] = []
    consumers: list[list[int]] = [[] for _ in layers]
    for index, layer in enumerate(layers):
        sources: dict[int, None] = {}
        for tensor in layer.inputs:
            writer = whole.get((tensor.name, tensor.dims))
            sources.update(dict.fromkeys(parts.get(tensor.name, ()) if writer is None else (writer,)))
        producers.append(tuple(sources))
        for source in sources:
            consumers[source].append(index)
        for tensor in layer.outputs:
            whole[tensor.name, tensor.dims] = index
            parts.setdefault(tensor.name, []).append(index)
    return producers, [tuple(indices) for indices in consumers]


def carries(layer: Layer) -> bool:
    """Tell whether the layer computes nothing: it converts, copies, moves or renames what it reads."""
    return is_reformat(layer) or kinds.is_conversion(layer) or kinds.is_idle(layer)


def is_reformat(layer: Layer) -> bool:
    """Tell whether the layer only writes what it reads in another layout, type or place."""
    kind = layer.kind.lower()
    return not kinds.is_conversion(layer) and (kind.partition(" ")[0] in REFORMATS or kinds.is_move(layer))


def sides_of(a: LayerGraph, b: LayerGraph) -> tuple[Side, Side]:
    """Return both sides of an alignment; batches count for nothing where they differ, nor do other image sizes."""
    read = input_dims(a), input_dims(b)
    if read[0] == read[1] or not all(read):
        return Side(a), Side(b)
    told = ALL_BUT_BATCH if read[0][1:] == read[1][1:] else CHANNELS
    return Side(a, told), Side(b, told)


def input_dims(graph: LayerGraph) -> Dims:
    """Return the dimensions of the network's first input, none where it has none."""
    written = {tensor.name for layer in graph.layers for tensor in layer.outputs}
    inputs = (tensor for layer in graph.layers for tensor in layer.inputs if tensor.name not in written)
    return next((tensor.dims for tensor in inputs if len(tensor.dims) > 1), ())


def tight_keys(a: Side, b: Side) -> tuple[list[Hashable], list[Hashable]]:
    """Return what is also the same in layers of one operation: the other dimensions read, and the weights' number.

    Without those that equal an output's: a residual may be added in another layer. Weights count where each
    convolution of both engines tells them.
    """
    told = all(one.weight_count for side in (a, b) for one in side.layers if kinds.is_compute(one))
    return _tight(a, told), _tight(b, told)


def _tight(side: Side, told: bool) -> list[Hashable]:
    return [
        (
            key,
            side.dims(layer.inputs) - side.dims(layer.outputs),
            layer.weight_count if told and kinds.is_compute(layer) else None,
        )
        for key, layer in zip(side.loose, side.layers, strict=True)
    ]


def colors(sides: Sequence[Side], keys: Sequence[Sequence[Hashable]]) -> list[list[list[int]]]:
    """Return each side's colors by depth: depth n tells layers apart by what stands around them, n layers far.

    Source: Weisfeiler and Leman's refinement, makers and readers apart.
    """
    numbers: dict[Hashable, int] = {}

    def number(value: Hashable) -> int:
        return numbers.setdefault(value, len(numbers))

    current = [[number(key) for key in side_keys] for side_keys in keys]
    found = [[one] for one in current]
    for depth in range(COLOR_DEPTHS):
        current = [_refined(side, one, depth, number) for side, one in zip(sides, current, strict=True)]
        for side_colors, one in zip(found, current, strict=True):
            side_colors.append(one)
    return found


def _refined(side: Side, own: Sequence[int], depth: int, number: Callable[[Hashable], int]) -> list[int]:
    return [
        number((depth, own[i], _around(own, side.makers[i]), _around(own, side.readers[i])))
        for i in range(len(side.layers))
    ]


def _around(own: Sequence[int], near: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(own[index] for index in near))
