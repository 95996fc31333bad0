"""The few SVG shapes that a picture is made of; ElementTree escapes every word and attribute."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence


def group(parent: ET.Element, classes: str, **attributes: str) -> ET.Element:
    """Add a group with CSS classes and return it."""
    return ET.SubElement(parent, "g", {"class": classes, **attributes})


def rect(parent: ET.Element, classes: str, box: tuple[float, float, float, float], *, radius: float = 0) -> None:
    """Add a rectangle; `box` is x, y, width, height in pixels."""
    place = dict(zip(("x", "y", "width", "height"), map(px, box), strict=True))
    ET.SubElement(parent, "rect", {"class": classes, **place, **({"rx": px(radius)} if radius else {})})


def polygon(parent: ET.Element, classes: str, corners: Sequence[tuple[float, float]]) -> None:
    """Add a polygon; `corners` in pixels."""
    points = " ".join(f"{px(x)},{px(y)}" for x, y in corners)
    ET.SubElement(parent, "polygon", {**({"class": classes} if classes else {}), "points": points})


def path(parent: ET.Element, steps: str, width: float) -> None:
    """Add an open path with a pen of `width` pixels."""
    ET.SubElement(parent, "path", {"d": steps, "stroke-width": px(width)})


def text(parent: ET.Element, classes: str, x: float, y: float, words: str) -> None:
    """Add one line of text; `y` is its baseline."""
    ET.SubElement(parent, "text", {"class": classes, "x": px(x), "y": px(y)}).text = words


def tooltip(parent: ET.Element, words: str) -> None:
    """Say on hover what `parent` is; readers aloud say it too."""
    ET.SubElement(parent, "title").text = words


def px(value: float) -> str:
    """Return a length with a tenth of a pixel, without a needless fraction."""
    return f"{value:.1f}".removesuffix(".0")
