"""What of an engine a picture shows: every layer, chains folded into one card, or only what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Literal

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.layers.graph import Layer, LayerGraph
from trtq.report.flow import Arrow, Flow, Port
from trtq.report.folding import chains
from trtq.report.marks import marks, only_moves
from trtq.report.regions import Region, connected, neighbours, regions
from trtq.report.wording import printable, shorten

Kind = Literal["layer", "chain", "hidden"]
ONLY: dict[str, Callable[[Layer, tuple[str, ...]], bool]] = {
    "conversions": lambda layer, badges: "conversion" in badges,
    "double-writes": lambda layer, badges: "double write" in badges,
    "requantizes": lambda layer, badges: "requantize" in badges,
    "reformats": lambda layer, badges: only_moves(layer),
    "marked": lambda layer, badges: bool(badges),
}
HOPS = 2
NAME_CHARACTERS = 80
COMPARED_CHARACTERS = 160


@dataclass(frozen=True)
class View:
    """How to show an engine.

    fold: draw straight chains of one precision as one card each. regions: frame the layers of a module.
    only: a key of ONLY. around: the name of a layer, ONNX node, tensor or module, a pattern with *, or a part of a
    name. What neither asks for is left out, but for `hops` layers (None: 1 for `only`, HOPS for `around`) next to it.
    """

    fold: bool = False
    regions: bool = True
    only: str | None = None
    around: str | None = None
    hops: int | None = None


@dataclass(frozen=True)
class Box:
    """What one card stands for: a layer, a folded chain of them, or connected layers that are not shown."""

    layers: tuple[int, ...]
    kind: Kind = "layer"


@dataclass(frozen=True)
class Plan:
    """What to draw: arrows count boxes from 0 and ports after the last box; regions hold indices of boxes; `asked` says
    what a part of an engine was asked for.
    """

    boxes: tuple[Box, ...]
    ports: tuple[Port, ...]
    arrows: tuple[Arrow, ...]
    regions: tuple[Region, ...] = ()
    asked: str = ""


def plan(graph: LayerGraph, links: Flow, view: View) -> Plan:
    """Decide on boxes; raises `ConfigError` where `view` asks for what the engine does not have."""
    badges = [marks(layer, graph.origin) for layer in graph.layers]
    places = regions(graph, links)
    wanted = _wanted(graph, links, badges, places, view)
    grouped = chains(graph, links, places) if view.fold else [(index,) for index in range(len(graph.layers))]
    boxes = [Box(part, "chain" if len(part) > 1 else "layer") for group in grouped for part in _shown(group, wanted)]
    if wanted is not None:
        boxes += [Box(piece, "hidden") for piece in _hidden(links, len(graph.layers), wanted)]
    return replace(_plan(boxes, links, len(graph.layers), places if view.regions else ()), asked=_asked(view))


def _shown(group: tuple[int, ...], wanted: frozenset[int] | None) -> list[tuple[int, ...]]:
    """Return the parts of a chain that are to be shown: what is left out between two of them keeps them apart."""
    if wanted is None:
        return [group]
    return [tuple(part) for asked, part in groupby(group, key=wanted.__contains__) if asked]


def _plan(boxes: list[Box], links: Flow, layers: int, places: Sequence[Region]) -> Plan:
    """Return the plan of `boxes` in execution order: hidden ones that touch nothing shown are left out, ports too."""
    of_layer = {index: box for box in boxes for index in box.layers}
    shown = [index in of_layer and of_layer[index].kind != "hidden" for index in range(layers)]
    shown += [False] * len(links.ports)
    touching = [arrow for arrow in links.arrows if shown[arrow.tail] or shown[arrow.head]]
    ends = {end for arrow in touching for end in (arrow.tail, arrow.head)}
    kept = [box for box in boxes if box.kind != "hidden" or not ends.isdisjoint(box.layers)]
    kept.sort(key=lambda box: box.layers)
    number = {index: place for place, box in enumerate(kept) for index in box.layers}
    ports = [place for place in range(len(links.ports)) if layers + place in ends]
    number |= {layers + place: len(kept) + count for count, place in enumerate(ports)}
    hidden = [box.kind == "hidden" for box in kept] + [False] * len(ports)
    arrows = tuple(_arrows(links.arrows, number, hidden))
    return Plan(tuple(kept), tuple(links.ports[place] for place in ports), arrows, tuple(_framed(places, kept, arrows)))


def _framed(places: Sequence[Region], boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Iterator[Region]:
    """Yield the connected boxes that lie wholly inside one region, where not all of them are hidden."""
    region = {index: number for number, place in enumerate(places) for index in place.layers}
    found = [{region.get(index, -1) for index in box.layers} for box in boxes]
    inside = [one.pop() if len(one) == 1 else -1 for one in found]
    ends = [(arrow.tail, arrow.head) for arrow in arrows if max(arrow.tail, arrow.head) < len(boxes)]
    for members in connected(len(boxes), [(tail, head) for tail, head in ends if inside[tail] == inside[head]]):
        place = inside[members[0]]
        if place >= 0 and any(boxes[one].kind != "hidden" for one in members):
            yield Region(places[place].title, members)


def _arrows(arrows: Sequence[Arrow], number: dict[int, int], hidden: Sequence[bool]) -> Iterator[Arrow]:
    """Yield the arrows between boxes; of several to or from what is hidden, of one dtype, the one of most bytes."""
    merged: dict[tuple[object, ...], Arrow] = {}
    for arrow in arrows:
        tail, head = number.get(arrow.tail, -1), number.get(arrow.head, -1)
        if tail == head or min(tail, head) < 0:
            continue
        moved = Arrow(tail, head, arrow.tensor, arrow.certain)
        unclear = hidden[tail] or hidden[head]
        key = (tail, head, arrow.tensor.dtype if unclear else (arrow.tensor.name, arrow.tensor.dims))
        if key not in merged or _size(merged[key]) < _size(moved):
            merged[key] = moved
    yield from merged.values()


def _size(arrow: Arrow) -> int:
    return arrow.tensor.size_bytes or 0


def _wanted(
    graph: LayerGraph, links: Flow, badges: Sequence[tuple[str, ...]], places: Sequence[Region], view: View
) -> frozenset[int] | None:
    """Return the layers to show; None: all."""
    if view.only is None and view.around is None:
        return None
    asked: set[int] = set()
    if view.only is not None:
        asked |= set(_only(graph, badges, view.only))
    if view.around is not None:
        asked |= set(_around(graph.layers, places, view.around))
    near = _within(links, len(graph.layers), asked, _hops(view))
    return _with_gaps(links, len(graph.layers), near)


def _hops(view: View) -> int:
    return view.hops if view.hops is not None else (1 if view.around is None else HOPS)


def _asked(view: View) -> str:
    parts = [view.only] if view.only is not None else []
    parts += [shorten(view.around, NAME_CHARACTERS)] if view.around is not None else []
    further = _hops(view)
    return f"{' and '.join(parts)}, and {further} layer{'s' * (further != 1)} further" if parts else ""


def _only(graph: LayerGraph, badges: Sequence[tuple[str, ...]], word: str) -> list[int]:
    if word not in ONLY:
        hint = did_you_mean(word, ONLY) or f"; {', '.join(ONLY)} are"
        raise ConfigError(f"'{shorten(printable(word), NAME_CHARACTERS)}' is nothing to ask for alone{hint}")
    found = [index for index, one in enumerate(zip(graph.layers, badges, strict=True)) if ONLY[word](*one)]
    if not found:
        what = "marked layers" if word == "marked" else word.replace("-", " ")
        unknown = getattr(graph.signals, word.replace("-", "_"), 0) is None
        why = f"a {graph.origin} engine of {graph.source} cannot tell" if unknown else "there is nothing to draw"
        raise ConfigError(printable(f"no {what} in this engine: {why}"))
    return found


def _around(layers: Sequence[Layer], places: Sequence[Region], name: str) -> list[int]:
    """Return the layers that a name means: exactly, else as a pattern, else as a part of the name."""
    region = {index: place.title for place in places for index in place.layers}
    names = [(*_names(layer), region.get(index, layer.name)) for index, layer in enumerate(layers)]
    for means in (lambda one: one == name, lambda one: fnmatchcase(one, name), lambda one: name in one):
        found = [index for index, own in enumerate(names) if any(map(means, own))]
        if found and name:
            return found
    known = dict.fromkeys(one for own in names for one in own if len(one) <= COMPARED_CHARACTERS)
    hint = did_you_mean(name[:COMPARED_CHARACTERS], known) or "; `trtq layers FILE -o layers.json` lists the names"
    raise ConfigError(
        f"'{shorten(printable(name), NAME_CHARACTERS)}' is no layer, ONNX node, tensor or module{printable(hint)}"
    )


def _names(layer: Layer) -> tuple[str, ...]:
    return (layer.name, *layer.onnx_nodes, *(tensor.name for tensor in layer.outputs))


def _within(links: Flow, layers: int, asked: Collection[int], hops: int) -> frozenset[int]:
    readers, writers = neighbours(links, layers)
    found, edge = set(asked), set(asked)
    for _ in range(hops):
        edge = {other for one in edge for other in readers[one] | writers[one] if other < layers} - found
        found |= edge
    return frozenset(found)


def _with_gaps(links: Flow, layers: int, shown: frozenset[int]) -> frozenset[int]:
    """Return `shown` with each layer that alone lies between: its card says more than that one is left out."""
    readers, writers = neighbours(links, layers)
    gaps = (one for one in range(layers) if readers[one] and writers[one] and readers[one] | writers[one] <= shown)
    return shown | frozenset(gaps)


def _hidden(links: Flow, layers: int, shown: frozenset[int]) -> list[tuple[int, ...]]:
    """Return the layers that are not shown in connected pieces, so cut that no arrow runs backwards between boxes.

    A piece holds layers of one level: the most shown layers that lie on any way to them.
    """
    level = [0] * layers
    inner = [arrow for arrow in links.arrows if max(arrow.tail, arrow.head) < layers]
    for arrow in sorted(inner, key=lambda arrow: arrow.head):
        level[arrow.head] = max(level[arrow.head], level[arrow.tail] + (arrow.tail in shown))
    pairs = [
        (arrow.tail, arrow.head)
        for arrow in inner
        if level[arrow.tail] == level[arrow.head] and shown.isdisjoint((arrow.tail, arrow.head))
    ]
    return [piece for piece in connected(layers, pairs) if piece[0] not in shown]
