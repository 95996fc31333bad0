"""The head of a picture: title, where the knowledge comes from, the signals, and what every colour and shape means."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from trtq.layers.graph import LayerGraph, Origin, Signals
from trtq.report.cards import Badges, hexagon, swap
from trtq.report.marks import CONVERSION, only_moves
from trtq.report.palette import HUES, MEANINGS, precision, precision_of
from trtq.report.shapes import group, path, px, rect, text, tooltip
from trtq.report.view import Plan
from trtq.report.weights import Weights
from trtq.report.wording import bytes_text, figure, percent, printable, shorten, shorten_words

MARGIN_PX, LINE_PX, LEGEND_ROW_PX, LEGEND_TOP_PX = 24, 17, 24, 12
FIRST_LINE_PX = 55
TAG_PX = 74
TITLE_CHARACTERS, LINE_CHARACTERS = 62, 118
NOTES = 3
SWATCH_PX, LEGEND_CHARACTER_PX = 50, 5.3
MEANS: dict[Origin, str] = {
    "measured": "the engine described itself",
    "compiled": "built ahead of time, nothing ran",
    "predicted": "no engine was built",
}
Entry = tuple[str, str]


class Heading:
    """The lines above a picture of `width_px` and the rows of its legend."""

    def __init__(self, graph: LayerGraph, title: str, plan: Plan, badges: Badges, weights: Weights, width_px: float):
        self._graph, self._title = graph, title
        self._lines = [_source(graph, timed=weights.timed), signals_line(graph.signals), *_shown(graph, plan)]
        self._notes = [printable(note) for note in graph.notes]
        self._rows = _rows(tuple(_entries(graph, plan, badges, weights)), width_px)

    @property
    def height_px(self) -> float:
        """The height of all of it."""
        return self._legend_top + LEGEND_ROW_PX * len(self._rows)

    @property
    def _legend_top(self) -> float:
        return FIRST_LINE_PX + LINE_PX * (len(self._lines) + len(self._shown_notes) - 1) + LEGEND_TOP_PX

    @property
    def _shown_notes(self) -> list[str]:
        rest = len(self._notes) - NOTES
        return self._notes[:NOTES] + ([f"and {rest} more notes"] if rest > 0 else [])

    def draw(self, root: ET.Element) -> None:
        """Draw title, lines, notes and legend at the top of `root`."""
        tag = group(root, f"origin {self._graph.origin}")
        tooltip(tag, f"{self._graph.origin}: {MEANS[self._graph.origin]}")
        rect(tag, "tag", (MARGIN_PX, 18, TAG_PX, 20), radius=10)
        text(tag, "tag-text middle", MARGIN_PX + TAG_PX / 2, 32, self._graph.origin)
        text(root, "title", MARGIN_PX + TAG_PX + 10, 34, shorten(printable(self._title), TITLE_CHARACTERS))
        y = FIRST_LINE_PX
        for line in self._lines:
            text(root, "soft", MARGIN_PX, y, shorten(line, LINE_CHARACTERS))
            y += LINE_PX
        for note in self._shown_notes:
            noted = group(root, "note")
            tooltip(noted, "\n".join(self._notes))
            text(noted, "soft", MARGIN_PX, y, shorten_words(note, LINE_CHARACTERS))
            y += LINE_PX
        for number, row in enumerate(self._rows):
            for x, name, words in row:
                _entry(root, name, words, MARGIN_PX + x, self._legend_top + number * LEGEND_ROW_PX)


def signals_line(signals: Signals) -> str:
    """Return the signals that are known, in one line."""
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


def _source(graph: LayerGraph, *, timed: bool) -> str:
    where = f" for {', '.join(graph.targets)}" if graph.targets else ""
    means = "the engine described and timed itself" if timed and graph.origin == "measured" else MEANS[graph.origin]
    return printable(f"{graph.source}{where} · {graph.origin}: {means}")


def _shown(graph: LayerGraph, plan: Plan) -> Iterator[str]:
    """Yield what the picture leaves out, if it does."""
    shown = sum(len(box.layers) for box in plan.boxes if box.kind != "hidden")
    folded = [box for box in plan.boxes if box.kind == "chain"]
    parts = [f"{shown} of {len(graph.layers)} layers shown: {printable(plan.asked)}"] if plan.asked else []
    if folded:
        parts.append(f"{sum(len(box.layers) for box in folded)} layers folded into {len(folded)} cards")
    if parts:
        yield " · ".join(parts)
    if len(plan.boxes) > 1 and not plan.arrows:
        yield "the file names layers and no tensors: cards stand in execution order, column by column"


def _entries(graph: LayerGraph, plan: Plan, badges: Badges, weights: Weights) -> Iterator[Entry]:
    shown = [index for box in plan.boxes if box.kind != "hidden" for index in box.layers]
    kinds = {box.kind for box in plan.boxes}
    used = {precision(graph.layers[index]) for index in shown}
    used |= {precision_of(arrow.tensor.dtype) for arrow in plan.arrows}
    found = {badge for index in shown for badge in badges[index]}
    yield from ((name, MEANINGS[name]) for name in HUES if name in used)
    if CONVERSION in found:
        yield "converts", "conversion: a Q or DQ left as a kernel of its own"
    if found - {CONVERSION}:
        yield "marked", "needs a look: the badge says why"
    if any(only_moves(graph.layers[index]) for index in shown):
        yield "moves", "only moves data"
    if "chain" in kinds:
        yield "chain", "a chain, folded"
    if plan.regions:
        yield "region", "a module of the network"
    if weights.heaviest:
        yield "weight", weights.legend()
    if plan.arrows:
        unknown = any(arrow.tensor.size_bytes is None for arrow in plan.arrows)
        yield "arrow", f"arrow: wider for more bytes{', thin where not known' if unknown else ''}"
    if not all(arrow.certain for arrow in plan.arrows):
        yield "unsure", "one of several writers of a buffer"


def _rows(entries: Sequence[Entry], width_px: float) -> list[list[tuple[float, str, str]]]:
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for name, words in entries:
        needed = SWATCH_PX + LEGEND_CHARACTER_PX * len(words)
        if rows[-1] and x + needed > width_px:
            rows.append([])
            x = 0.0
        rows[-1].append((x, name, words))
        x += needed
    return rows


def _entry(root: ET.Element, name: str, words: str, x: float, y: float) -> None:
    classes = {"arrow": "arrow unknown", "unsure": "arrow unsure unknown", "moves": "unknown"}
    entry = group(root, f"legend {classes.get(name, name)}")
    _swatch(entry, name, x, y)
    text(entry, "soft", x + 30, y + 10, words)


def _swatch(entry: ET.Element, name: str, x: float, y: float) -> None:
    if name in ("arrow", "unsure"):
        path(entry, f"M{px(x)},{px(y + 6)}h24", 2.5 if name == "arrow" else 1.6)
    elif name == "weight":
        rect(entry, "track", (x, y + 4, 24, 4), radius=2)
        rect(entry, "bar", (x, y + 4, 15, 4), radius=2)
    elif name == "converts":
        hexagon(entry, "block", (26, 14), (x - 1, y - 1))
        swap(entry, x + 5, y + 1)
    elif name == "moves":
        hexagon(entry, "card", (24, 12), (x, y))
    elif name == "region":
        rect(entry, "frame", (x + 1, y, 22, 12), radius=3)
    else:
        if name == "chain":
            rect(entry, "card", (x + 4, y + 3, 20, 11), radius=3)
        rect(entry, "card", (x + 1, y, 20 if name == "chain" else 22, 11 if name == "chain" else 12), radius=3)
