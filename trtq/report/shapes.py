"""The few SVG shapes that a picture is made of; ElementTree escapes every word and attribute."""

from __future__ import annotations

import xml.etree.ElementTree as ET


def group(parent: ET.Element, classes: str, **attributes: str) -> ET.Element:
    """Add a group with CSS classes and return it."""
    return ET.SubElement(parent, "g", {"class": classes, **attributes})


def rect(parent: ET.Element, classes: str, box: tuple[float, float, float, float], *, radius: float = 0) -> None:
    """Add a rectangle; `box` is x, y, width, height in pixels."""
    place = dict(zip(("x", "y", "width", "height"), map(px, box), strict=True))
    ET.SubElement(parent, "rect", {"class": classes, **place, **({"rx": px(radius)} if radius else {})})


def path(parent: ET.Element, steps: str, width: float) -> None:
    """Add an open path with a pen of `width` pixels."""
    ET.SubElement(parent, "path", {"d": steps, "stroke-width": px(width)})


def text(parent: ET.Element, classes: str, x: float, y: float, words: str) -> None:
    """Add one line of text; `y` is its baseline."""
    ET.SubElement(parent, "text", {"class": classes, "x": px(x), "y": px(y)}).text = words


def px(value: float) -> str:
    """Return a length with a tenth of a pixel, without a needless fraction."""
    return f"{value:.1f}".removesuffix(".0")
