"""What each layer of an engine weighs, the heaviest first: time where it was profiled, else the bytes that it moves."""

from __future__ import annotations

from dataclasses import dataclass

from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import traffic_bytes
from trtq.report import wording
from trtq.report.data import NamedGraph
from trtq.report.marks import marks
from trtq.report.palette import HUES, MEANINGS, Precision, precision
from trtq.report.words import short_name


@dataclass(frozen=True)
class Bar:
    """One layer: its index in the graph, its weight as text, and that weight as shares of the heaviest and of all."""

    index: int
    operation: str
    name: str
    precision: Precision
    badges: tuple[str, ...]
    weight: str
    of_heaviest: float
    of_all: float


@dataclass(frozen=True)
class Chart:
    """The layers of one mode, the heaviest first; no bars where the engine's description has no figure of any."""

    mode: str
    origin: str
    measure: str
    total: str
    bars: tuple[Bar, ...]

    @property
    def legend(self) -> tuple[tuple[Precision, str], ...]:
        """The precisions that occur, and what each means."""
        used = {one.precision for one in self.bars}
        return tuple((name, MEANINGS[name]) for name in HUES if name in used)


def chart(named: NamedGraph) -> Chart:
    """Rank the layers of a graph by time where any was profiled, by activation bytes otherwise."""
    graph = named.graph
    timed = is_timed(graph)
    weights = [weight(layer, timed=timed) for layer in graph.layers]
    heaviest, total = max(weights, default=0.0), sum(weights)
    order = sorted(range(len(weights)), key=lambda index: (-weights[index], index)) if heaviest else []
    return Chart(
        mode=named.mode,
        origin=graph.origin,
        measure="time" if timed else "activation traffic",
        total=f"{wording.figure(total, 1)} µs" if timed else wording.bytes_text(int(total)),
        bars=tuple(
            Bar(
                index=index,
                operation=wording.operation(graph.layers[index]),
                name=short_name(graph.layers[index]),
                precision=precision(graph.layers[index]),
                badges=marks(graph.layers[index], graph.origin),
                weight=weight_text(graph.layers[index], timed=timed),
                of_heaviest=weights[index] / heaviest,
                of_all=weights[index] / total,
            )
            for index in order
        ),
    )


def is_timed(graph: LayerGraph) -> bool:
    """Tell whether any layer of the graph was profiled."""
    return any(layer.time_us is not None for layer in graph.layers)


def weight(layer: Layer, *, timed: bool) -> float:
    """Return a layer's time in microseconds or its activation traffic in bytes; 0 where that is not known."""
    return (layer.time_us or 0.0) if timed else float(traffic_bytes([layer]) or 0)


def weight_text(layer: Layer, *, timed: bool) -> str:
    """Return the weight with its unit, a dash where it is not known."""
    if timed:
        return wording.MISSING if layer.time_us is None else f"{wording.figure(layer.time_us, 1)} µs"
    return wording.bytes_text(traffic_bytes([layer]))
