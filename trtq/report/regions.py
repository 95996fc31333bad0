"""Regions: the layers of one module of the network, where its size makes a frame worth drawing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trtq.layers import kinds
from trtq.layers.graph import LayerGraph
from trtq.report.flow import Flow
from trtq.report.marks import passes_on
from trtq.report.scopes import ModulePath, layer_path

LARGEST_LAYERS = 24
SMALLEST_LAYERS = 3
SMALLEST_GRAPH_LAYERS = 8


@dataclass(frozen=True)
class Region:
    """Connected layers (indices, in execution order) of the module named by `title`, as model.backbone.stage2."""

    title: str
    layers: tuple[int, ...]


def regions(graph: LayerGraph, links: Flow) -> tuple[Region, ...]:
    """Divide a graph by its modules; () where names have no scopes or all is one module.

    A module of more than LARGEST_LAYERS layers gives way to the modules in it. Layers without a scope, as copies and
    the quantizers of old exports, belong where all their readers do, else where all their writers do.
    """
    if len(graph.layers) < SMALLEST_GRAPH_LAYERS:
        return ()
    paths = [layer_path(layer) for layer in graph.layers]
    cuts = _cuts(paths)
    places = [next((path[:size] for size in range(len(path), 0, -1) if path[:size] in cuts), ()) for path in paths]
    pieces = tuple(_pieces(_enclosed(graph, _with_neighbours(graph, places, links), links), links))
    return () if any(len(piece.layers) == len(paths) for piece in pieces) else pieces


def _cuts(paths: Sequence[ModulePath]) -> frozenset[ModulePath]:
    """Return the modules to frame: on each way from the root the first that is small enough."""
    counts = Counter(path[:size] for path in paths for size in range(1, len(path) + 1))
    children: dict[ModulePath, list[ModulePath]] = defaultdict(list)
    for path, count in counts.items():
        if count >= SMALLEST_LAYERS:
            children[path[:-1]].append(path)
    found: set[ModulePath] = set()
    waiting = list(children[()])
    while waiting:
        path = waiting.pop()
        if counts[path] <= LARGEST_LAYERS or not children[path]:
            found.add(path)
        else:
            waiting += children[path]
    return frozenset(found)


def _with_neighbours(graph: LayerGraph, places: Sequence[ModulePath], links: Flow) -> list[ModulePath]:
    """Return each layer's region, those that only convert or move where their readers or writers agree on one."""
    known = list(places)
    readers, writers = neighbours(links, len(known))
    passing = [index for index, layer in enumerate(graph.layers) if passes_on(layer) and not layer_path(layer)]
    for order, beside in ((reversed(passing), readers), (passing, writers)):
        for index in order:
            around = {known[other] for other in beside[index] if other < len(known)}
            if not known[index] and len(around) == 1:
                known[index] = around.pop()
    return known


def _enclosed(graph: LayerGraph, places: Sequence[ModulePath], links: Flow) -> list[ModulePath]:
    """Return each layer's region; connected layers of no region, or of such as compute nothing, go to the only one
    that feeds and reads them.
    """
    known = list(places)
    computing = {place for place, layer in zip(places, graph.layers, strict=True) if kinds.is_compute(layer)} - {()}
    outside = [place if place in computing else () for place in places]
    readers, writers = neighbours(links, len(places))
    for members in connected(len(places), _inner(outside, links)):
        inside = set(members)
        sides = [{other for one in members for other in side[one]} - inside for side in (readers, writers)]
        around = {outside[other] if other < len(places) else () for other in set().union(*sides)}
        if not outside[members[0]] and all(sides) and len(around) == 1:
            for one in members:
                known[one] = next(iter(around)) or known[one]
    return known


def _inner(places: Sequence[ModulePath], links: Flow) -> list[tuple[int, int]]:
    """Return the arrows between layers of one place."""
    layers = [arrow for arrow in links.arrows if max(arrow.tail, arrow.head) < len(places)]
    return [(arrow.tail, arrow.head) for arrow in layers if places[arrow.tail] == places[arrow.head]]


def neighbours(links: Flow, layers: int) -> tuple[list[set[int]], list[set[int]]]:
    """Return for each layer who reads from it and who writes to it; ports count on after the layers."""
    readers: list[set[int]] = [set() for _ in range(layers + len(links.ports))]
    writers: list[set[int]] = [set() for _ in range(layers + len(links.ports))]
    for arrow in links.arrows:
        readers[arrow.tail].add(arrow.head)
        writers[arrow.head].add(arrow.tail)
    return readers, writers


def _pieces(places: Sequence[ModulePath], links: Flow) -> Iterator[Region]:
    """Yield the connected parts of each region: one frame around far-apart layers would hold others' as well."""
    for members in connected(len(places), _inner(places, links)):
        if len(members) > 1 and places[members[0]]:
            yield Region(".".join(places[members[0]]), members)


def connected(count: int, pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Return the parts of 0 to `count` - 1 that `pairs` connect, each in order, by their first members."""
    root = list(range(count))

    def find(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        root[high] = low
    parts: dict[int, list[int]] = defaultdict(list)
    for one in range(count):
        parts[find(one)].append(one)
    return tuple(map(tuple, parts.values()))
