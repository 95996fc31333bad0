"""Measured times of layers, joined to a layer graph.

The rule: a row belongs to the layer of its name, the second row of a name to the second layer of that name, and so on.
Rows and layers left over between two neighbours that so belong belong to each other in order, where there are as many
of the one as of the other. The rest is said, not guessed: rows without a layer, layers without a time.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from trtq.errors import ModelError
from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import total_time_us


def with_times(graph: LayerGraph, rows: Iterable[tuple[str, float]], where: str) -> LayerGraph:
    """Return the graph with a time in microseconds for each layer, from rows of (layer's name, time).

    Layers whose time is not finite or below zero stay without one. What the join leaves over becomes a note. Raises
    `ModelError`, which names `where` the rows are from, when they name none of the layers.
    """
    rows = list(rows)
    joined = _by_name([layer.name for layer in graph.layers], [name for name, _ in rows])
    if not joined:
        raise ModelError(f"{where}: names none of the engine's layers; use the profile of the same engine")
    _by_order(joined, len(graph.layers), len(rows))
    layers = tuple(
        replace(layer, time_us=_time_us(rows[joined[index]][1]) if index in joined else None)
        for index, layer in enumerate(graph.layers)
    )
    found = replace(graph.signals, time_us=total_time_us(layers))
    return replace(graph, layers=layers, signals=found, notes=(*graph.notes, *_left_over(layers, rows, joined)))


def _by_name(layers: Sequence[str], rows: Sequence[str]) -> dict[int, int]:
    places: defaultdict[str, deque[int]] = defaultdict(deque)
    for row, name in enumerate(rows):
        places[name].append(row)
    return {index: places[name].popleft() for index, name in enumerate(layers) if places.get(name)}


def _by_order(joined: dict[int, int], layer_count: int, row_count: int) -> None:
    """Join what is left between neighbours that are joined, where both sides have as many."""
    taken = set(joined.values())
    before_layer, before_row = -1, -1
    for layer, row in [*sorted(joined.items()), (layer_count, row_count)]:
        layers, rows = range(before_layer + 1, layer), range(before_row + 1, row)
        if len(layers) == len(rows) and taken.isdisjoint(rows):
            joined.update(zip(layers, rows, strict=True))
        before_layer, before_row = layer, row


def _time_us(value: float) -> float | None:
    return value if math.isfinite(value) and value >= 0 else None


def _left_over(layers: Sequence[Layer], rows: Sequence[tuple[str, float]], joined: dict[int, int]) -> Iterable[str]:
    taken = set(joined.values())
    stray = [time for row, (_, time) in enumerate(rows) if row not in taken]
    if stray:
        total = sum(time for time in stray if math.isfinite(time))
        yield f"profile: {len(stray)} rows of together {total:.1f} µs belong to none of these layers"
    if untimed := sum(layer.time_us is None for layer in layers):
        yield f"profile: {untimed} layers have no time"
