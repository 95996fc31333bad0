"""What the page's script knows about layers: their full names, for searching, and which of two engines correspond."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.report import wording
from trtq.report.chart import is_timed, weight_text
from trtq.report.data import Match, NamedGraph
from trtq.report.marks import marks

NAMES_KEPT = 200
# In a script element nothing but this ends it or starts markup.
ESCAPED = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def layers_json(graphs: Sequence[NamedGraph], matches: Sequence[Match]) -> Markup:
    """Return the graphs' layers and matches as JSON that is safe inside a script element.

    modes: a list of {mode, layers: [[operation, name, kind, reads, writes, weight, ONNX names, badges]]}; matches: a
    list of [graph, graph, [[layers of the one], [layers of the other]]].
    """
    numbers = {named.mode: number for number, named in enumerate(graphs)}
    document = {
        "modes": [{"mode": wording.printable(named.mode, 80), "layers": list(_rows(named.graph))} for named in graphs],
        "matches": [
            [numbers[match.a], numbers[match.b], [[group.a, group.b] for group in match.groups if group.a and group.b]]
            for match in matches
            if match.a in numbers and match.b in numbers
        ],
    }
    # Escaped, the words can neither end the element nor open another.
    return Markup(json.dumps(document, separators=(",", ":")).translate(ESCAPED))


def _rows(graph: LayerGraph) -> Iterator[list[Any]]:
    timed = is_timed(graph)
    for layer in graph.layers:
        yield [
            wording.printable(wording.operation(layer), 80),
            wording.printable(layer.name),
            wording.printable(layer.kind, 80),
            [_text(tensor) for tensor in layer.inputs],
            [_text(tensor) for tensor in layer.outputs],
            weight_text(layer, timed=timed),
            _names(layer),
            marks(layer, graph.origin),
        ]


def _names(layer: Layer) -> list[str]:
    return [wording.printable(name, 200) for name in layer.onnx_nodes[:NAMES_KEPT]]


def _text(tensor: Tensor) -> str:
    layout = f", {wording.printable(tensor.format, 60)}" if tensor.format else ""
    size = wording.bytes_text(tensor.size_bytes)
    return f"{tensor.dtype} {wording.dims_text(tensor.dims)} ({size}{layout}) {wording.printable(tensor.name, 120)}"
