"""Pictures in the page: checked and written anew, since they may come from a file and hold names that attack."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from markupsafe import Markup

from trtq.errors import ModelError
from trtq.report.data import NamedGraph

SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
# What draws and can neither run, load nor link.
DRAWN = frozenset(
    {"svg", "style", "g", "title", "desc", "rect", "path", "polygon", "polyline", "line", "circle", "ellipse"}
    | {"text", "tspan"}
)
DRAWN_ATTRIBUTES = frozenset(
    {"class", "width", "height", "viewBox", "role", "aria-label", "aria-hidden", "transform"}
    | {"x", "y", "dx", "dy", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "d", "points", "pathLength"}
    | {"stroke-width", "stroke-dasharray", "text-anchor", "opacity"}
)
OWN_PREFIX = "data-"


def picture(named: NamedGraph) -> Markup | None:
    """Return the picture of a graph as markup, None where there is none.

    Browsers read HTML more freely than XML, so it is parsed and written anew. Raises `ModelError` when it holds what
    `report.svg.svg` does not draw.
    """
    if named.svg is None:
        return None
    try:
        root = ET.fromstring(named.svg)
    except ET.ParseError as error:
        raise ModelError(f"the picture of mode '{named.mode}' is not SVG ({error}); draw it again") from error
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG_NAMESPACE)
        foreign = {name for name in element.attrib if not name.startswith(OWN_PREFIX)} - DRAWN_ATTRIBUTES
        if element.tag not in DRAWN or foreign:
            raise ModelError(
                f"the picture of mode '{named.mode}' holds a foreign <{element.tag}>; draw it again with `trtq graph`"
            )
    root.set("xmlns", SVG_NAMESPACE.strip("{}"))
    # Every element and attribute is on the list above; ElementTree escapes the rest.
    return Markup(ET.tostring(root, encoding="unicode"))
