"""A layer graph as a picture: one card a layer, Graphviz's layout, every word written by us and escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from itertools import pairwise

from trtq.layers.graph import LayerGraph
from trtq.report import arrows
from trtq.report.cards import PORT_HEIGHT_PX, PORT_WIDTH_PX, Cards, port
from trtq.report.flow import flow
from trtq.report.heading import MARGIN_PX, Heading
from trtq.report.layout import FRAME_TITLE_PX, Frame, Layout, Rectangle, lay_out
from trtq.report.marks import marks
from trtq.report.regions import Region
from trtq.report.shapes import group, px, rect, text, tooltip
from trtq.report.style import style
from trtq.report.view import Plan, View, plan
from trtq.report.weights import weights
from trtq.report.wording import printable, shorten

MIN_WIDTH_PX = 760
REGION_CHARACTERS = 48
REGION_CHARACTER_PX = 6.6
COLUMN_CARDS = 16
EVERYTHING = View()


def svg(graph: LayerGraph, title: str, *, highlight: Collection[str] = (), view: View = EVERYTHING) -> str:
    """Draw `graph` as a self-contained SVG document; the same graph gives the same bytes.

    highlight: names of layers to mark with a halo. Each card's group carries `data-layer`: the layer's index in the
    graph, or the indices of all layers that were folded into the card, in order and with spaces between.
    Raises `MissingBackendError` where Graphviz's program `dot` is not installed, and `ConfigError` where `view` asks
    for what `graph` does not have.
    """
    shown = plan(graph, flow(graph), view)
    badges = tuple(marks(layer, graph.origin) for layer in graph.layers)
    scale = weights(graph, shown.boxes)
    cards = Cards(graph.layers, badges, scale, frozenset(highlight))
    layout = _layout(shown, cards)

    heading = Heading(graph, title, shown, badges, scale, max(layout.width, MIN_WIDTH_PX))
    top = heading.height_px + MARGIN_PX
    width = max(layout.width, MIN_WIDTH_PX) + 2 * MARGIN_PX
    root = _root(width, layout.height + top + MARGIN_PX, title)
    heading.draw(root)
    _body(root, (width - layout.width) / 2, top, shown, cards, layout)
    return ET.tostring(root, encoding="unicode") + "\n"


def _layout(shown: Plan, cards: Cards) -> Layout:
    sizes = [*map(cards.size, shown.boxes), *[(PORT_WIDTH_PX, PORT_HEIGHT_PX)] * len(shown.ports)]
    arrows_and_order = [*((arrow.tail, arrow.head) for arrow in shown.arrows), *_order(shown)]
    frames = [Frame(region.layers, REGION_CHARACTER_PX * len(_region_title(region))) for region in shown.regions]
    return lay_out(sizes, arrows_and_order, frames)


def _order(shown: Plan) -> Iterator[tuple[int, int]]:
    """Yield links that put boxes without arrows below each other in execution order, some a column: engines built
    without detailed profiling verbosity name their layers and no tensors.
    """
    ends = {end for arrow in shown.arrows for end in (arrow.tail, arrow.head)}
    alone = [index for index in range(len(shown.boxes)) if index not in ends]
    yield from (pair for place, pair in enumerate(pairwise(alone), start=1) if place % COLUMN_CARDS)


def _root(width: float, height: float, title: str) -> ET.Element:
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "trtq-graph",
            "width": px(width),
            "height": px(height),
            "viewBox": f"0 0 {px(width)} {px(height)}",
            "role": "img",
            "aria-label": printable(title),
        },
    )
    ET.SubElement(root, "style").text = style()
    rect(root, "paper", (0, 0, width, height))
    return root


def _body(root: ET.Element, left: float, top: float, shown: Plan, cards: Cards, layout: Layout) -> None:
    """Draw frames below arrows below words and cards: no arrow hides a word."""
    body = group(root, "body", transform=f"translate({px(left)} {px(top)})")
    for region, frame in zip(shown.regions, layout.frames, strict=True):
        _frame(body, region, frame)
    for arrow, points in zip(shown.arrows, layout.arrows, strict=False):
        if points:
            arrows.draw(body, arrow, points, layout.centres[arrow.tail])
    for region, (x, y, _, _) in zip(shown.regions, layout.frames, strict=True):
        text(body, "region-title", x + 10, y + FRAME_TITLE_PX, _region_title(region))
    for box, centre in zip(shown.boxes, layout.centres, strict=False):
        cards.draw(body, box, centre)
    for one, centre in zip(shown.ports, layout.centres[len(shown.boxes) :], strict=True):
        port(body, one, centre)


def _frame(body: ET.Element, region: Region, frame: Rectangle) -> None:
    drawn = group(body, "region")
    tooltip(drawn, printable(region.title))
    rect(drawn, "frame", frame, radius=8)


def _region_title(region: Region) -> str:
    return shorten(printable(region.title), REGION_CHARACTERS)
