"""Cards: a layer, a folded chain, a conversion, layers not shown, and the network's inputs and outputs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from trtq.layers import kinds
from trtq.layers.graph import Layer
from trtq.report.flow import Port
from trtq.report.layout import Point
from trtq.report.marks import CONVERSION, only_moves
from trtq.report.palette import Precision, precision, precision_of
from trtq.report.shapes import group, polygon, px, rect, text, tooltip
from trtq.report.view import Box
from trtq.report.weights import Weights
from trtq.report.wording import operation, printable, shorten, shorten_words
from trtq.report.words import change, converted, group_text, layer_text, name, tensor_text, type_text, types

CARD_WIDTH_PX, CARD_HEIGHT_PX, BADGE_HEIGHT_PX = 228, 58, 18
PORT_WIDTH_PX, PORT_HEIGHT_PX = 168, 34
HIDDEN_WIDTH_PX, HIDDEN_HEIGHT_PX = 150, 24
POINT_PX, STACK_PX = 13, 5  # of a hexagon's sides, and between the cards of a stack
LINE_CHARACTERS, MOVE_CHARACTERS = 34, 31  # of the monospaced lines, 6 px each
OPERATION_CHARACTERS = 24
Badges = Sequence[tuple[str, ...]]


class Cards:
    """Draws the boxes of one engine: its layers, their badges, what they weigh and which of them are lit."""

    def __init__(self, layers: Sequence[Layer], badges: Badges, weights: Weights, lit: frozenset[str]) -> None:
        self._layers, self._badges, self._weights, self._lit = layers, badges, weights, lit

    def size(self, box: Box) -> tuple[float, float]:
        """Return a box's width and height in pixels."""
        if box.kind == "hidden":
            return HIDDEN_WIDTH_PX, HIDDEN_HEIGHT_PX
        if box.kind == "chain":
            return CARD_WIDTH_PX + STACK_PX, CARD_HEIGHT_PX + STACK_PX
        badges = self._badges[box.layers[0]]
        return CARD_WIDTH_PX, CARD_HEIGHT_PX + (BADGE_HEIGHT_PX if badges and CONVERSION not in badges else 0)

    def draw(self, body: ET.Element, box: Box, centre: Point) -> None:
        """Draw a box; a card's group carries `data-layer`, the indices of its layers."""
        layers = [self._layers[index] for index in box.layers]
        width, height = self.size(box)
        card = group(body, self._classes(box, layers), transform=_corner(centre, width, height))
        if box.kind == "hidden":
            _hidden(card, layers)
            return
        card.set("data-layer", " ".join(map(str, box.layers)))
        badges = self._badges[box.layers[0]]
        if box.kind == "chain":
            self._chain(card, layers)
        elif CONVERSION in badges:
            self._conversion(card, layers[0], badges)
        elif only_moves(layers[0]):
            self._move(card, layers[0], badges)
        else:
            self._layer(card, layers[0], badges)

    def _classes(self, box: Box, layers: Sequence[Layer]) -> str:
        if box.kind == "hidden":
            return "hidden"
        classes = ["layer", chain_precision(layers)]
        if box.kind == "layer" and self._badges[box.layers[0]]:
            classes.append("converts" if CONVERSION in self._badges[box.layers[0]] else "marked")
        return " ".join([*classes, *(["lit"] if any(layer.name in self._lit for layer in layers) else [])])

    def _layer(self, card: ET.Element, layer: Layer, badges: tuple[str, ...]) -> None:
        top = BADGE_HEIGHT_PX if badges else 0
        tooltip(card, layer_text(layer, badges))
        _outline(card, (0, 0, CARD_WIDTH_PX, CARD_HEIGHT_PX + top))
        if badges:
            _badge(card, " + ".join(badges))
        self._lines(card, top, shorten_words(printable(operation(layer)), OPERATION_CHARACTERS), [layer])

    def _chain(self, card: ET.Element, layers: Sequence[Layer]) -> None:
        tooltip(card, group_text("in a row, folded", layers))
        behind = (STACK_PX, STACK_PX, CARD_WIDTH_PX, CARD_HEIGHT_PX)
        rect(card, "halo", behind, radius=6)
        rect(card, "card", behind, radius=6)
        rect(card, "card", (0, 0, CARD_WIDTH_PX, CARD_HEIGHT_PX), radius=6)
        self._lines(card, 0, f"{len(layers)} layers", layers)

    def _move(self, card: ET.Element, layer: Layer, badges: tuple[str, ...]) -> None:
        tooltip(card, layer_text(layer, badges))
        top = BADGE_HEIGHT_PX if badges else 0
        hexagon(card, "halo", (CARD_WIDTH_PX, CARD_HEIGHT_PX + top))
        hexagon(card, "card", (CARD_WIDTH_PX, CARD_HEIGHT_PX + top))
        if badges:
            text(card, "op", 20, 15, " + ".join(badges))
        words = shorten_words(printable(operation(layer)), OPERATION_CHARACTERS)
        self._lines(card, top, words, [layer], inset=20, characters=MOVE_CHARACTERS)

    def _conversion(self, card: ET.Element, layer: Layer, badges: tuple[str, ...]) -> None:
        tooltip(card, layer_text(layer, badges))
        width, height = CARD_WIDTH_PX, CARD_HEIGHT_PX
        hexagon(card, "halo", (width, height))
        hexagon(card, "block", (width, height))
        for side, tensors in ((0, layer.inputs), (width, layer.outputs)):
            end = group(card, f"end-cap {precision_of(tensors[0].dtype) if tensors else 'unknown'}")
            inner = abs(side - POINT_PX)
            polygon(end, "", ((side, height / 2), (inner, 0), (inner, height)))
        swap(card, 22, 7)
        text(card, "on-block strong capitals", 40, 16, " + ".join(badges))
        text(card, "on-block end", width - 22, 16, self._weights.text([layer]))
        text(card, "on-block strong", 22, 31, shorten(change(layer), MOVE_CHARACTERS))
        text(card, "on-block mono", 22, 44, shorten(converted(layer), MOVE_CHARACTERS))
        self._bar(card, 50, 22, "track-on-block", "bar-on-block", [layer])

    def _lines(
        self, card: ET.Element, top: float, head: str, layers: Sequence[Layer], *, inset: float = 10,
        characters: int = LINE_CHARACTERS,
    ) -> None:  # fmt: skip
        text(card, "op", inset, top + 17, head)
        text(card, "soft end", CARD_WIDTH_PX - inset, top + 17, self._weights.text(layers))
        text(card, "mono", inset, top + 31, shorten(name(layers), characters))
        text(card, "mono soft", inset, top + 44, shorten(types(layers[0], layers[-1]), characters))
        self._bar(card, top + 50, inset, "track", "bar", layers)

    def _bar(self, card: ET.Element, y: float, inset: float, track: str, bar: str, layers: Sequence[Layer]) -> None:
        width = CARD_WIDTH_PX - 2 * inset
        rect(card, track, (inset, y, width, 4), radius=2)
        share = self._weights.share(layers)
        if share > 0:
            rect(card, bar, (inset, y, max(2.0, share * width), 4), radius=2)


def chain_precision(layers: Sequence[Layer]) -> Precision:
    """Return the precision of a card: that of the layers that compute, else of all; mixed where they differ."""
    found = {precision(layer) for layer in layers if kinds.is_compute(layer)} or {precision(layer) for layer in layers}
    return found.pop() if len(found) == 1 else "mixed"


def port(body: ET.Element, one: Port, centre: Point) -> None:
    """Draw an input or output of the network."""
    pill = group(body, "port", transform=_corner(centre, PORT_WIDTH_PX, PORT_HEIGHT_PX))
    way = "enters the network" if one.enters else "leaves the network, or no layer reads it"
    tooltip(pill, f"{way}\n{tensor_text(one.tensor)}")
    rect(pill, "card", (0, 0, PORT_WIDTH_PX, PORT_HEIGHT_PX), radius=PORT_HEIGHT_PX / 2)
    text(pill, "mono middle", PORT_WIDTH_PX / 2, 14, shorten(printable(one.tensor.name), 24))
    text(pill, "mono soft middle", PORT_WIDTH_PX / 2, 26, shorten(type_text(one.tensor), 26))


def hexagon(parent: ET.Element, classes: str, size: tuple[float, float], corner: Point = (0, 0)) -> None:
    """Add the shape of what converts or moves: a card with pointed sides."""
    (width, height), (x, y) = size, corner
    tip = min(POINT_PX, width / 4)
    sides = ((0, height / 2), (tip, 0), (width - tip, 0), (width, height / 2), (width - tip, height), (tip, height))
    polygon(parent, classes, [(x + dx, y + dy) for dx, dy in sides])


def swap(parent: ET.Element, x: float, y: float) -> None:
    """Add the sign of a conversion, 14 by 10 px: an arrow to the right above one to the left."""
    for direction, tip, line in ((1, x + 14, y + 2), (-1, x, y + 8)):
        back, neck = tip - 14 * direction, tip - 5 * direction
        corners = ((back, line - 1), (neck, line - 1), (neck, line - 3.5), (tip, line), (neck, line + 3.5))
        polygon(parent, "on-block", (*corners, (neck, line + 1), (back, line + 1)))


def _corner(centre: Point, width: float, height: float) -> str:
    return f"translate({px(centre[0] - width / 2)} {px(centre[1] - height / 2)})"


def _outline(card: ET.Element, outline: tuple[float, float, float, float]) -> None:
    rect(card, "halo", outline, radius=6)
    rect(card, "card", outline, radius=6)


def _badge(card: ET.Element, words: str) -> None:
    rect(card, "badge", (0, 0, CARD_WIDTH_PX, BADGE_HEIGHT_PX))
    text(card, "badge-text", 10, 13, words)


def _hidden(card: ET.Element, layers: Sequence[Layer]) -> None:
    tooltip(card, group_text("not shown", layers))
    rect(card, "card", (0, 0, HIDDEN_WIDTH_PX, HIDDEN_HEIGHT_PX), radius=HIDDEN_HEIGHT_PX / 2)
    words = f"{len(layers)} layer{'s' if len(layers) > 1 else ''} not shown"
    text(card, "soft middle", HIDDEN_WIDTH_PX / 2, 16, words)
