"""A layer graph as a picture: one card a layer, Graphviz's layout, every word written by us and escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator

from trtq.layers.graph import Layer, LayerGraph, Signals, Tensor
from trtq.layers.signals import traffic_bytes
from trtq.report.flow import Arrow, Flow, Port, flow
from trtq.report.layout import Layout, Point, lay_out
from trtq.report.marks import marks
from trtq.report.palette import HUES, MEANINGS, precision, precision_of
from trtq.report.shapes import group, path, px, rect, text
from trtq.report.style import style
from trtq.report.wording import (
    bytes_text,
    dims_text,
    figure,
    node_name,
    operation,
    percent,
    printable,
    shorten,
    shorten_words,
)

CARD_WIDTH_PX, CARD_HEIGHT_PX, BADGE_HEIGHT_PX = 228, 58, 18
PORT_WIDTH_PX, PORT_HEIGHT_PX = 168, 34
MARGIN_PX, HEADER_HEIGHT_PX, LEGEND_ROW_PX = 24, 66, 24
MIN_WIDTH_PX = 760
LINE_CHARACTERS = 34  # of the monospaced lines, 6 px each
OPERATION_CHARACTERS = 24
TOOLTIP_CHARACTERS = 2000
TOOLTIP_NODES = 12
SHORT_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
ARROWHEAD_PX = 7
Badges = tuple[tuple[str, ...], ...]


def svg(graph: LayerGraph, title: str, *, highlight: Collection[str] = ()) -> str:
    """Draw `graph` as a self-contained SVG document; the same graph gives the same bytes.

    highlight: names of layers to mark with a halo. Each layer's group carries `data-layer`, its index in the graph.
    Raises `MissingBackendError` where Graphviz's program `dot` is not installed.
    """
    links = flow(graph)
    badges = tuple(marks(layer, graph.origin) for layer in graph.layers)
    sizes = [(CARD_WIDTH_PX, CARD_HEIGHT_PX + (BADGE_HEIGHT_PX if badge else 0)) for badge in badges]
    sizes += [(PORT_WIDTH_PX, PORT_HEIGHT_PX)] * len(links.ports)
    layout = lay_out(sizes, [(arrow.tail, arrow.head) for arrow in links.arrows])

    legend = tuple(_legend_entries(graph, links, badges))
    rows = _legend_rows(legend, max(layout.width, MIN_WIDTH_PX))
    top = HEADER_HEIGHT_PX + LEGEND_ROW_PX * len(rows) + MARGIN_PX
    width = max(layout.width, MIN_WIDTH_PX) + 2 * MARGIN_PX
    root = _root(width, layout.height + top + MARGIN_PX, title)
    _header(root, graph, title)
    _legend(root, rows)
    body = group(root, "body", transform=f"translate({px((width - layout.width) / 2)} {px(top)})")
    _arrows(body, links, layout)
    _cards(body, graph, badges, layout, frozenset(highlight))
    _ports(body, links, layout, len(graph.layers))
    return ET.tostring(root, encoding="unicode") + "\n"


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


def _header(root: ET.Element, graph: LayerGraph, title: str) -> None:
    where = f" for {', '.join(graph.targets)}" if graph.targets else ""
    text(root, "title", MARGIN_PX, 34, shorten(printable(title), 70))
    text(root, "soft", MARGIN_PX, 53, shorten(printable(f"{graph.origin} · {graph.source}{where}"), 110))
    text(root, "soft", MARGIN_PX, 70, _signals_line(graph.signals))


def _signals_line(signals: Signals) -> str:
    parts = [f"{signals.layers} layers", f"int8 share {percent(signals.int8_share)}"]
    counted = {
        "conversions": signals.conversions,
        "double writes": signals.double_writes,
        "requantizes": signals.requantizes,
        "float writes": signals.float_writes,
    }
    parts += [f"{value} {words}" for words, value in counted.items() if value is not None]
    if signals.traffic_bytes is not None:
        parts.append(f"{bytes_text(signals.traffic_bytes)} activation traffic")
    if signals.time_us is not None:
        parts.append(f"{figure(signals.time_us)} µs")
    return " · ".join(parts)


def _legend_entries(graph: LayerGraph, links: Flow, badges: Badges) -> Iterator[tuple[str, str]]:
    used = {precision(layer) for layer in graph.layers}
    used |= {precision_of(arrow.tensor.dtype) for arrow in links.arrows}
    yield from ((name, MEANINGS[name]) for name in HUES if name in used)
    if any(badges):
        yield "marked", "needs a look: the badge says why"
    yield "weight", f"bar: {'time' if _is_timed(graph) else 'activation bytes'}, full width = {_heaviest_text(graph)}"
    if not all(arrow.certain for arrow in links.arrows):
        yield "unsure", "one of several writers of a buffer"


def _legend_rows(entries: tuple[tuple[str, str], ...], width: float) -> list[list[tuple[float, str, str]]]:
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for name, words in entries:
        needed = 46 + 5.8 * len(words)
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, name, words))
        x += needed
    return rows


def _legend(root: ET.Element, rows: list[list[tuple[float, str, str]]]) -> None:
    for number, row in enumerate(rows):
        y = HEADER_HEIGHT_PX + 20 + number * LEGEND_ROW_PX
        for x, name, words in row:
            entry = group(root, f"legend {'arrow unsure unknown' if name == 'unsure' else name}")
            if name == "unsure":
                path(entry, f"M{px(MARGIN_PX + x)},{y + 6}h24", 1.6)
            elif name == "weight":
                rect(entry, "track", (MARGIN_PX + x, y + 4, 24, 4), radius=2)
            else:
                rect(entry, "card", (MARGIN_PX + x + 1, y, 22, 12), radius=3)
            text(entry, "soft", MARGIN_PX + x + 30, y + 10, words)


def _cards(body: ET.Element, graph: LayerGraph, badges: Badges, layout: Layout, lit: frozenset[str]) -> None:
    heaviest = _heaviest(graph) or 1.0
    timed = _is_timed(graph)
    for index, (layer, badge) in enumerate(zip(graph.layers, badges, strict=True)):
        card = group(body, _card_classes(layer, badge, lit), transform=_card_corner(layout.centres[index], badge))
        card.set("data-layer", str(index))
        ET.SubElement(card, "title").text = _tooltip(layer, badge)
        _card(card, layer, badge, _weight(layer, timed=timed) / heaviest, timed=timed)


def _card_classes(layer: Layer, badge: tuple[str, ...], lit: frozenset[str]) -> str:
    classes = ["layer", precision(layer)]
    return " ".join([*classes, *(["marked"] if badge else []), *(["lit"] if layer.name in lit else [])])


def _card_corner(centre: Point, badge: tuple[str, ...]) -> str:
    room = BADGE_HEIGHT_PX if badge else 0
    return f"translate({px(centre[0] - CARD_WIDTH_PX / 2)} {px(centre[1] + (room - CARD_HEIGHT_PX) / 2)})"


def _card(card: ET.Element, layer: Layer, badge: tuple[str, ...], share: float, *, timed: bool) -> None:
    room = BADGE_HEIGHT_PX if badge else 0
    outline = (0, -room, CARD_WIDTH_PX, CARD_HEIGHT_PX + room)
    weight = f"{figure(layer.time_us, 1)} µs" if timed else bytes_text(traffic_bytes([layer]))
    rect(card, "halo", outline, radius=6)
    rect(card, "card", outline, radius=6)
    if badge:
        _badge(card, " + ".join(badge))
    text(card, "op", 10, 17, shorten_words(printable(operation(layer)), OPERATION_CHARACTERS))
    text(card, "soft end", CARD_WIDTH_PX - 10, 17, weight)
    text(card, "mono", 10, 31, shorten(printable(node_name(layer) or layer.name), LINE_CHARACTERS))
    text(card, "mono soft", 10, 44, shorten(_types(layer), LINE_CHARACTERS))
    rect(card, "track", (10, 50, CARD_WIDTH_PX - 20, 4), radius=2)
    if share > 0:
        rect(card, "bar", (10, 50, max(2.0, share * (CARD_WIDTH_PX - 20)), 4), radius=2)


def _badge(card: ET.Element, words: str) -> None:
    rect(card, "badge", (0, -BADGE_HEIGHT_PX, CARD_WIDTH_PX, BADGE_HEIGHT_PX))
    text(card, "badge-text", 10, -BADGE_HEIGHT_PX + 13, words)


def _ports(body: ET.Element, links: Flow, layout: Layout, first: int) -> None:
    for index, port in enumerate(links.ports, start=first):
        x, y = layout.centres[index]
        corner = f"translate({px(x - PORT_WIDTH_PX / 2)} {px(y - PORT_HEIGHT_PX / 2)})"
        pill = group(body, "port", transform=corner)
        ET.SubElement(pill, "title").text = f"{_direction(port)}\n{_tensor_text(port.tensor)}"
        rect(pill, "card", (0, 0, PORT_WIDTH_PX, PORT_HEIGHT_PX), radius=PORT_HEIGHT_PX / 2)
        text(pill, "mono middle", PORT_WIDTH_PX / 2, 14, shorten(printable(port.tensor.name), 24))
        text(pill, "mono soft middle", PORT_WIDTH_PX / 2, 26, shorten(_type_text(port.tensor), 26))


def _arrows(body: ET.Element, links: Flow, layout: Layout) -> None:
    for arrow, points in zip(links.arrows, layout.arrows, strict=True):
        if points:
            _arrow(body, arrow, points)


def _arrow(body: ET.Element, arrow: Arrow, points: tuple[Point, ...]) -> None:
    classes = f"arrow {precision_of(arrow.tensor.dtype)}{'' if arrow.certain else ' unsure'}"
    drawn = group(body, classes)
    ET.SubElement(drawn, "title").text = _tensor_text(arrow.tensor)
    start, *curve, tip = points
    base = curve[-1] if curve else start
    width = _pen_width(arrow.tensor.size_bytes)
    steps = " ".join(f"{px(x)},{px(y)}" for x, y in curve)
    path(drawn, f"M{px(start[0])},{px(start[1])}" + (f"C{steps}" if curve else ""), width)
    half = ARROWHEAD_PX / 2 + width / 3
    dx, dy = tip[0] - base[0], tip[1] - base[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    side = (-dy / length * half, dx / length * half)
    corners = ((base[0] + side[0], base[1] + side[1]), tip, (base[0] - side[0], base[1] - side[1]))
    ET.SubElement(drawn, "polygon", {"points": " ".join(f"{px(x)},{px(y)}" for x, y in corners)})


def _pen_width(size_bytes: int | None) -> float:
    """Return 1 to 5 px: every tenfold of bytes from 1 kB on adds one."""
    return 1.2 if not size_bytes else min(5.0, max(1.0, len(str(size_bytes)) - 2.5))


def _tooltip(layer: Layer, badge: tuple[str, ...]) -> str:
    rest = len(layer.onnx_nodes) - TOOLTIP_NODES
    lines = [
        printable(layer.name),
        f"{printable(layer.kind)}{': ' + ' and '.join(badge) if badge else ''}",
        *(f"reads {_tensor_text(tensor)}" for tensor in layer.inputs),
        *(f"writes {_tensor_text(tensor)}" for tensor in layer.outputs),
        f"traffic {bytes_text(traffic_bytes([layer]))}",
        *([f"time {figure(layer.time_us, 2)} µs"] if layer.time_us is not None else []),
        *(f"ONNX {printable(name)}" for name in layer.onnx_nodes[:TOOLTIP_NODES]),
        *([f"and {rest} more ONNX nodes"] if rest > 0 else []),
    ]
    return shorten("\n".join(lines), TOOLTIP_CHARACTERS)


def _types(layer: Layer) -> str:
    kinds = [dict.fromkeys(SHORT_DTYPES.get(t.dtype, t.dtype) for t in side) for side in (layer.inputs, layer.outputs)]
    written = dict.fromkeys(dims_text(tensor.dims) for tensor in layer.outputs)
    return f"{'+'.join(kinds[0]) or 'none'} → {'+'.join(kinds[1]) or 'none'} {' '.join(written)}"


def _type_text(tensor: Tensor) -> str:
    return f"{tensor.dtype} {dims_text(tensor.dims)}"


def _tensor_text(tensor: Tensor) -> str:
    layout = f", {printable(tensor.format)}" if tensor.format else ""
    return f"{_type_text(tensor)} ({bytes_text(tensor.size_bytes)}{layout})  {printable(tensor.name)}"


def _direction(port: Port) -> str:
    return "enters the network" if port.enters else "leaves the network"


def _is_timed(graph: LayerGraph) -> bool:
    return any(layer.time_us is not None for layer in graph.layers)


def _weight(layer: Layer, *, timed: bool) -> float:
    return (layer.time_us or 0.0) if timed else float(traffic_bytes([layer]) or 0)


def _heaviest(graph: LayerGraph) -> float:
    timed = _is_timed(graph)
    return max((_weight(layer, timed=timed) for layer in graph.layers), default=0.0)


def _heaviest_text(graph: LayerGraph) -> str:
    heaviest = _heaviest(graph)
    return f"{figure(heaviest, 1)} µs" if _is_timed(graph) else bytes_text(int(heaviest))
