"""Who feeds whom: the arrows between the layers of an engine, and the network's own inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trtq.layers.graph import LayerGraph, Tensor


@dataclass(frozen=True)
class Port:
    """A tensor that enters the network or leaves it."""

    tensor: Tensor
    enters: bool


@dataclass(frozen=True)
class Arrow:
    """A tensor on its way from one box to another: layers count from 0, ports go on after the last layer.

    `certain` is False where several layers write slices of one buffer and only the last of that shape was taken.
    """

    tail: int
    head: int
    tensor: Tensor
    certain: bool = True


@dataclass(frozen=True)
class Flow:
    """The arrows and ports of one layer graph."""

    ports: tuple[Port, ...]
    arrows: tuple[Arrow, ...]


def flow(graph: LayerGraph) -> Flow:
    """Connect layers through their tensors' names, in execution order: a reader takes what was written before it.

    TensorRT elides a Concat by letting each branch write its slice of one buffer: a reader of the whole buffer has
    all of them as sources, a reader of a slice the last writer of that shape.
    """
    ports: dict[str, int] = {}
    found: list[Port] = []
    arrows: list[Arrow] = []
    writers: dict[str, list[tuple[int, Tensor]]] = {}
    read = {tensor.name for layer in graph.layers for tensor in layer.inputs}
    for index, layer in enumerate(graph.layers):
        for tensor in _distinct(layer.inputs):
            if tensor.name not in writers:
                if tensor.name not in ports:
                    ports[tensor.name] = len(graph.layers) + len(found)
                    found.append(Port(tensor, enters=True))
                arrows.append(Arrow(ports[tensor.name], index, tensor))
            else:
                arrows.extend(_sources(writers[tensor.name], index, tensor))
        for tensor in _distinct(layer.outputs):
            writers.setdefault(tensor.name, []).append((index, tensor))
    for name, written in writers.items():
        if name not in read:
            arrows.extend(Arrow(index, len(graph.layers) + len(found), tensor) for index, tensor in written)
            found.append(Port(written[-1][1], enters=False))
    return Flow(tuple(found), tuple(arrows))


def _sources(written: list[tuple[int, Tensor]], head: int, tensor: Tensor) -> Iterator[Arrow]:
    same = [index for index, other in written if other.dims == tensor.dims]
    if same:
        yield Arrow(same[-1], head, tensor, certain=len(same) == 1)
        return
    for index, other in written:
        yield Arrow(index, head, other)


def _distinct(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple({(tensor.name, tensor.dims): tensor for tensor in tensors}.values())
