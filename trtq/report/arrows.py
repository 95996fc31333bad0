"""Arrows: a tensor on its way from one card to another, as wide as it is large."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from trtq.report.flow import Arrow
from trtq.report.layout import Point
from trtq.report.palette import precision_of
from trtq.report.shapes import group, path, polygon, px, tooltip
from trtq.report.words import tensor_text

ARROWHEAD_PX = 7
UNDER_CARD_PX = 14


def draw(body: ET.Element, arrow: Arrow, points: tuple[Point, ...], tail: Point) -> None:
    """Draw an arrow along `points`: its start, Bézier triples, its tip.

    It goes on from its start towards `tail`, the centre of the card that is drawn over it: dot takes every card for a
    rectangle, and the corners of hexagons are cut off.
    """
    drawn = group(body, f"arrow {precision_of(arrow.tensor.dtype)}{'' if arrow.certain else ' unsure'}")
    tooltip(drawn, tensor_text(arrow.tensor))
    start, *curve, tip = points
    base = curve[-1] if curve else start
    width = pen_width(arrow.tensor.size_bytes)
    steps = " ".join(f"{px(x)},{px(y)}" for x, y in curve)
    path(drawn, f"M{px(start[0])},{px(start[1])}" + (f"C{steps}" if curve else ""), width)
    path(drawn, f"M{px(start[0])},{px(start[1])}L{_towards(start, tail)}", width)
    half = ARROWHEAD_PX / 2 + width / 3
    dx, dy = tip[0] - base[0], tip[1] - base[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    side = (-dy / length * half, dx / length * half)
    polygon(drawn, "", ((base[0] + side[0], base[1] + side[1]), tip, (base[0] - side[0], base[1] - side[1])))


def _towards(start: Point, end: Point) -> str:
    dx, dy = end[0] - start[0], end[1] - start[1]
    part = min(1.0, UNDER_CARD_PX / ((dx * dx + dy * dy) ** 0.5 or 1.0))
    return f"{px(start[0] + part * dx)},{px(start[1] + part * dy)}"


def pen_width(size_bytes: int | None) -> float:
    """Return 1 to 5 px: every tenfold of bytes from 1 kB on adds one."""
    return 1.2 if not size_bytes else min(5.0, max(1.0, len(str(size_bytes)) - 2.5))
