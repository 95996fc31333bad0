"""Where boxes and arrows go: Graphviz's `dot` computes it from sizes alone, so no name ever reaches it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import graphviz

from trtq.errors import MissingBackendError

POINTS_PER_INCH = 72
RANK_GAP_PX = 26
NODE_GAP_PX = 18
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Positions in pixels, y downwards: the centre of each box, and each arrow as start, Bézier triples, tip."""

    width: float
    height: float
    centres: tuple[Point, ...]
    arrows: tuple[tuple[Point, ...], ...]


def lay_out(sizes: Sequence[tuple[float, float]], links: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of `sizes` (width, height in pixels) so that every link (tail, head) points downwards.

    Raises `MissingBackendError` where the program `dot` is not installed or does not work.
    """
    drawing = graphviz.Digraph(
        graph_attr={"nodesep": _inches(NODE_GAP_PX), "ranksep": _inches(RANK_GAP_PX)},
        node_attr={"shape": "box", "fixedsize": "true", "label": ""},
    )
    for index, (width, height) in enumerate(sizes):
        drawing.node(f"n{index}", width=_inches(width), height=_inches(height))
    for index, (tail, head) in enumerate(links):
        drawing.edge(f"n{tail}", f"n{head}", comment=str(index))
    return _read(json.loads(_run(drawing)), len(sizes), len(links))


def _run(drawing: graphviz.Digraph) -> bytes:
    try:
        return bytes(drawing.pipe(format="json", quiet=True))
    except graphviz.ExecutableNotFound as error:
        raise MissingBackendError(
            "pictures need Graphviz's program `dot`, which is not installed: `apt-get install graphviz`"
        ) from error
    except graphviz.CalledProcessError as error:
        reason = (error.stderr or b"").decode(errors="replace").strip().splitlines()[:1]
        raise MissingBackendError(
            f"Graphviz's program `dot` failed ({''.join(reason) or error.returncode}); "
            "install it again: `apt-get install graphviz`"
        ) from error


def _read(document: dict[str, Any], boxes: int, links: int) -> Layout:
    _, _, width, height = map(float, document["bb"].split(","))
    centres: list[Point] = [(0.0, 0.0)] * boxes
    for row in document.get("objects", ()):
        x, y = map(float, row["pos"].split(","))
        centres[int(row["name"][1:])] = (x, height - y)
    arrows: list[tuple[Point, ...]] = [()] * links
    for row in document.get("edges", ()):
        arrows[int(row["comment"])] = _spline(row["pos"], height)
    return Layout(width, height, tuple(centres), tuple(arrows))


def _spline(text: str, height: float) -> tuple[Point, ...]:
    """Return the control points of Graphviz's `splineType`: "e,x,y" is the arrow's tip and comes first there."""
    tip, curve = None, []
    for part in text.split(" "):
        *flag, x, y = part.split(",")
        point = (float(x), height - float(y))
        if flag:
            tip = point
        else:
            curve.append(point)
    return (*curve, tip or curve[-1])


def _inches(pixels: float) -> str:
    return f"{pixels / POINTS_PER_INCH:.4f}"
