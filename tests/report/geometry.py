"""Where a picture puts its cards, frames and arrows, read off the SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

SVG = "{http://www.w3.org/2000/svg}"
STEPS = 12  # points that each curve is looked at
PAIR = re.compile(r"-?[\d.]+,-?[\d.]+")
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the picture's body."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        inside = self.left <= other.left and other.right <= self.right
        return inside and self.top <= other.top and other.bottom <= self.bottom

    def around(self, point: Point, margin: float) -> bool:
        x, y = point
        return self.left + margin < x < self.right - margin and self.top + margin < y < self.bottom - margin


def cards(picture: str) -> list[Box]:
    """Return every card, port and pill."""
    groups = [one for one in _body(picture) if _classes(one)[:1] in (["layer"], ["port"], ["hidden"])]
    return [_outline(one) for one in groups]


def frames(picture: str) -> list[Box]:
    """Return the frames of regions."""
    return [_outline(one) for one in _body(picture) if "region" in _classes(one)]


def arrows(picture: str) -> list[list[Point]]:
    """Return points on each arrow's line, from its start on."""
    lines = [one.find(f"{SVG}path") for one in _body(picture) if "arrow" in _classes(one)]
    return [list(_points(line.get("d", ""))) for line in lines if line is not None]


def _body(picture: str) -> ET.Element:
    return next(one for one in ET.fromstring(picture) if "body" in _classes(one))


def _classes(element: ET.Element) -> list[str]:
    return element.get("class", "").split()


def _outline(element: ET.Element) -> Box:
    x, y = _shift(element)
    corners: list[Point] = []
    for shape in element.iter():
        if not {"card", "block", "frame"} & set(_classes(shape)):
            continue
        corners += _pairs(shape.get("points", ""))
        if shape.tag == f"{SVG}rect":
            left, top, width, height = (float(shape.get(name, "")) for name in ("x", "y", "width", "height"))
            corners += [(left, top), (left + width, top + height)]
    across, down = [x + one for one, _ in corners], [y + one for _, one in corners]
    return Box(min(across), min(down), max(across), max(down))


def _shift(element: ET.Element) -> Point:
    numbers = re.findall(r"-?[\d.]+", element.get("transform", "translate(0 0)"))
    return float(numbers[0]), float(numbers[1])


def _pairs(text: str) -> list[Point]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in PAIR.findall(text))]


def _points(steps: str) -> Iterator[Point]:
    points = _pairs(steps)
    yield points[0]
    for start in range(0, len(points) - 3, 3):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = points[start : start + 4]
        for step in range(1, STEPS + 1):
            t = step / STEPS
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x = sum(weight * value for weight, value in zip(weights, (ax, bx, cx, dx), strict=True))
            yield x, sum(weight * value for weight, value in zip(weights, (ay, by, cy, dy), strict=True))
