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
FRAME_MARGIN_PX = 14
FRAME_TITLE_PX = 20
FRAMED_WEIGHT = "4"  # short arrows within frames, so that frames are no longer than what is in them
# One round a box: without a limit dot's network simplex runs for minutes where every layer reads all before it, and
# draws deep networks half as wide again. Many arrows are not told apart anyway: fewer rounds against their crossings.
EFFORT = {"nslimit": "1", "nslimit1": "1"}
MANY_LINKS = 2000
LESS_EFFORT = {**EFFORT, "mclimit": "0.3"}
Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """Boxes (indices) to be kept together inside a frame, with room at its top for a title of `title_px`."""

    boxes: tuple[int, ...]
    title_px: float


@dataclass(frozen=True)
class Layout:
    """Positions in pixels, y downwards: each box's centre, each arrow as start, Bézier triples, tip; frames as x, y,
    width, height.
    """

    width: float
    height: float
    centres: tuple[Point, ...]
    arrows: tuple[tuple[Point, ...], ...]
    frames: tuple[Rectangle, ...]


def lay_out(
    sizes: Sequence[tuple[float, float]], links: Sequence[tuple[int, int]], frames: Sequence[Frame] = ()
) -> Layout:
    """Place boxes of `sizes` (width, height in pixels) so that every link (tail, head) points downwards.

    No box may be in two frames.

    Raises `MissingBackendError` where the program `dot` is not installed or does not work.
    """
    # Without newrank a frame is ranked by itself, and arrows that leave and enter it again run upwards.
    gaps = {"nodesep": _inches(NODE_GAP_PX), "ranksep": _inches(RANK_GAP_PX)}
    effort = LESS_EFFORT if len(links) > MANY_LINKS else EFFORT
    drawing = graphviz.Digraph(
        graph_attr={**gaps, **effort, "newrank": "true"},
        node_attr={"shape": "box", "fixedsize": "true", "label": ""},
    )
    for index, (width, height) in enumerate(sizes):
        drawing.node(f"n{index}", width=_inches(width), height=_inches(height))
    for number, frame in enumerate(frames):
        with drawing.subgraph(name=f"cluster_{number}") as cluster:
            cluster.attr(label=_room(frame.title_px), labeljust="l", margin=str(FRAME_MARGIN_PX))
            for index in frame.boxes:
                cluster.node(f"n{index}")
    frame_of = {index: number for number, frame in enumerate(frames) for index in frame.boxes}
    for index, (tail, head) in enumerate(links):
        inside = tail in frame_of and frame_of[tail] == frame_of.get(head)
        drawing.edge(f"n{tail}", f"n{head}", comment=str(index), weight=FRAMED_WEIGHT if inside else "1")
    return _read(json.loads(_run(drawing)), len(sizes), len(links), len(frames))


def _room(width: float) -> str:
    """Return a label that is an empty box of known size: the same on machines with other fonts."""
    size = f'width="{width:.0f}" height="{FRAME_TITLE_PX}"'
    return f'<<table border="0" cellborder="0" cellspacing="0" fixedsize="true" {size}><tr><td></td></tr></table>>'


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


def _read(document: dict[str, Any], boxes: int, links: int, frames: int) -> Layout:
    _, _, width, height = map(float, document["bb"].split(","))
    centres: list[Point] = [(0.0, 0.0)] * boxes
    placed: list[Rectangle] = [(0.0, 0.0, 0.0, 0.0)] * frames
    for row in document.get("objects", ()):
        if "bb" in row:
            left, bottom, right, top = map(float, row["bb"].split(","))
            placed[int(row["name"].removeprefix("cluster_"))] = (left, height - top, right - left, top - bottom)
        else:
            x, y = map(float, row["pos"].split(","))
            centres[int(row["name"][1:])] = (x, height - y)
    arrows: list[tuple[Point, ...]] = [()] * links
    for row in document.get("edges", ()):
        arrows[int(row["comment"])] = _spline(row["pos"], height)
    return Layout(width, height, tuple(centres), tuple(arrows), tuple(placed))


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
