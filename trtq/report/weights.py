"""What a layer weighs in a picture: its time where an engine was profiled, else the bytes of activations it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import total_time_us, traffic_bytes
from trtq.report.view import Box
from trtq.report.wording import bytes_text, figure


@dataclass(frozen=True)
class Weights:
    """The weight of boxes: `timed` in microseconds, else in bytes; `heaviest` is that of the heaviest box shown."""

    timed: bool
    heaviest: float

    def of(self, layers: Sequence[Layer]) -> float:
        """Return the layers' weight together; 0 where it is not known."""
        return float((total_time_us(layers) if self.timed else traffic_bytes(layers)) or 0)

    def share(self, layers: Sequence[Layer]) -> float:
        """Return the layers' weight as a fraction of the heaviest box's."""
        return min(1.0, self.of(layers) / self.heaviest) if self.heaviest else 0.0

    def text(self, layers: Sequence[Layer]) -> str:
        """Return the layers' weight in words; a dash where it is not known."""
        if not self.timed:
            known = any(layer.inputs or layer.outputs for layer in layers)
            return bytes_text(traffic_bytes(layers) if known else None)
        time_us = total_time_us(layers)
        return figure(None) if time_us is None else f"{figure(time_us, 1)} µs"

    def legend(self) -> str:
        """Return what a full bar means."""
        full = f"{figure(self.heaviest, 1)} µs" if self.timed else bytes_text(int(self.heaviest))
        return f"bar: {'time' if self.timed else 'activation bytes'}, full width = {full}"


def weights(graph: LayerGraph, boxes: Sequence[Box]) -> Weights:
    """Return how the boxes of a picture are weighed."""
    timed = any(layer.time_us is not None for layer in graph.layers)
    scale = Weights(timed, 0.0)
    shown = [[graph.layers[index] for index in box.layers] for box in boxes if box.kind != "hidden"]
    return Weights(timed, max(map(scale.of, shown), default=0.0))
