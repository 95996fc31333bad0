"""Chains: straight runs of layers that one card can stand for without hiding anything that needs a look."""

from __future__ import annotations

from collections.abc import Sequence

from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph
from trtq.report.flow import Flow
from trtq.report.marks import marks, passes_on
from trtq.report.palette import Precision, precision
from trtq.report.regions import Region, neighbours


def chains(graph: LayerGraph, links: Flow, places: Sequence[Region]) -> list[tuple[int, ...]]:
    """Divide a graph's layers (indices) into straight chains in execution order, most of them of one layer.

    In a chain every layer is the only reader of the one before, which is its only writer; all are of one precision and
    region; none is marked, converts or only moves.
    """
    region = {index: number for number, place in enumerate(places) for index in place.layers}
    readers, writers = neighbours(links, len(graph.layers))
    unsure = {end for arrow in links.arrows if not arrow.certain for end in (arrow.tail, arrow.head)}
    alone = {index for index, layer in enumerate(graph.layers) if marks(layer, graph.origin) or passes_on(layer)}
    found: list[tuple[list[int], Precision | None]] = []
    ends: dict[int, int] = {}
    for index, layer in enumerate(graph.layers):
        own = None if _is_epilogue(layer, graph) else precision(layer)
        before = next(iter(writers[index])) if len(writers[index]) == 1 else -1
        place = ends.get(before)
        if (
            place is not None
            and len(readers[before]) == 1
            and not {index, before} & (alone | unsure)
            and region.get(before) == region.get(index)
            and _agree(found[place][1], own)
        ):
            found[place] = ([*found[place][0], index], found[place][1] or own)
            del ends[before]
        else:
            place = len(found)
            found.append(([index], own))
        ends[index] = place
    return [tuple(layers) for layers, _ in found]


def _is_epilogue(layer: Layer, graph: LayerGraph) -> bool:
    """Tell whether a kernel only finishes what a convolution began: TensorRT-RTX rounds and activates in kernels
    behind it, and then all of an int8 network would seem to change its type in every second kernel.
    """
    return graph.origin == "compiled" and bool(kinds.operations(layer)) and not kinds.is_compute(layer)


def _agree(one: Precision | None, other: Precision | None) -> bool:
    return one is None or other is None or one == other
