"""Compare two layer graphs: what each runs differently, what it costs, and which ONNX tensor is behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from trtq.compare import aspects, labels, parts, summary
from trtq.compare.align import align
from trtq.compare.costs import Costs
from trtq.compare.difference import Comparison, Difference, DifferenceClass, Part, Rest
from trtq.compare.entries import Entry, entries, layers_of
from trtq.compare.joining import Group
from trtq.compare.parts import Buckets
from trtq.compare.reasons import float_joins
from trtq.compare.sides import input_dims
from trtq.compare.views import View, Views
from trtq.compare.wording import words_of
from trtq.layers.graph import LayerGraph, Signals

STEM, TAIL = "stem", "tail"


def compare(
    a: LayerGraph,
    b: LayerGraph,
    a_name: str,
    b_name: str,
    *,
    onnx_a: Path | None = None,
    onnx_b: Path | None = None,
    engine_us: tuple[float, float] | None = None,
) -> Comparison:
    """Return every difference between two engines, the most costly first; costs are B minus A.

    Each layer of either engine is in one difference or in the rest, so that costs add up to the whole: the profiled
    times where both engines have them, and the bytes moved where these tell. Where one engine is compiled int8 and the
    other is compiled float, bytes are no cost: TensorRT-RTX's convolutions never write int8. The ONNX files that the
    engines were built from make causes and remedies exact; without them these name nodes and rules. engine_us: the mean
    time of a query in A and B, as the engines run without a profiler. Raises `ModelError` for an ONNX file that cannot
    be read.
    """
    alignment = align(a, b)
    views = View(alignment.sides[0], a_name, onnx_a), View(alignment.sides[1], b_name, onnx_b)
    costs = Costs(views, alignment.groups)
    found = entries(alignment.groups, alignment.sides)
    places = [_with_tactics(_Place(one, parts.buckets(one, alignment.sides)), views, costs) for one in found]
    differing = [place for place in places if parts.is_difference(place.buckets)]
    whole = Group(tuple(range(len(a.layers))), tuple(range(len(b.layers))))
    rest = _joined(place.entry for place in places if not parts.is_difference(place.buckets))
    total_bytes = costs.bytes(whole)
    rest_bytes = None if total_bytes is None else costs.bytes(rest)
    namer = _Namer(places)
    differences = [_difference(place, namer.name(place, views), views, costs) for place in differing]
    comparison = Comparison(
        a=a_name,
        b=b_name,
        aligned_share=alignment.share,
        differences=tuple(sorted(differences, key=_rank)),
        total_us=costs.us(whole),
        unexplained_us=costs.us(rest),
        share_a=alignment.share_a,
        share_b=alignment.share_b,
        total_bytes=total_bytes,
        unexplained_bytes=rest_bytes,
        rest=Rest(_names(views[0], rest.a), _names(views[1], rest.b), costs.us(rest), rest_bytes),
        roles=costs.roles(),
        resolution_us=costs.resolution_us,
        engine_us=None if engine_us is None else round(engine_us[1] - engine_us[0], 3),
        origins=(a.origin, b.origin),
    )
    joins = tuple(len(float_joins(view.side, range(len(view.graph.layers)))) for view in views)
    return replace(comparison, notes=summary.notes(comparison, joins, (input_dims(a), input_dims(b))))


def signal_table(a: LayerGraph, b: LayerGraph) -> list[tuple[str, int | float | None, int | float | None]]:
    """Return one row a signal: its name, A's figure and B's, None where the origin cannot tell."""
    return [(one.name, getattr(a.signals, one.name), getattr(b.signals, one.name)) for one in fields(Signals)]


@dataclass(frozen=True)
class _Place:
    """A place with its layers by class."""

    entry: Entry
    buckets: Buckets


class _Namer:
    """Names places: by their scope, and by where they lie beside the residual blocks, where there are any."""

    def __init__(self, places: Sequence[_Place]) -> None:
        blocks = [place.entry.layers(0) for place in places if place.entry.is_block and place.entry.layers(0)]
        self._first = min((block[0] for block in blocks), default=None)
        self._last = max((block[-1] for block in blocks), default=None)

    def name(self, place: _Place, views: Views) -> str:
        """Return the name of a place, "" where nothing tells."""
        a, b = layers_of(place.entry.whole, (views[0].side, views[1].side))
        name = labels.INPUT if place.entry.is_input else labels.label(a, b)
        indices = place.entry.layers(0)
        if place.entry.is_input or place.entry.is_block or not indices or self._first is None or self._last is None:
            return name
        if indices[-1] < self._first:
            return f"{STEM}: {name}" if name else STEM
        if indices[0] > self._last:
            return f"{TAIL}: {name}" if name else TAIL
        return name


def _with_tactics(place: _Place, views: Views, costs: Costs) -> _Place:
    """Call a place that is alike but for its kernels, and whose time differs, a difference."""
    if parts.is_difference(place.buckets) or not costs.is_profiled:
        return place
    whole = place.entry.whole
    if not aspects.tactics_differ(views[0].layers(whole.a), views[1].layers(whole.b)) or not costs.is_shown(whole):
        return place
    return replace(place, buckets={"other tactic": whole})


def _difference(place: _Place, region: str, views: Views, costs: Costs) -> Difference:
    whole = place.entry.whole
    kinds = parts.dearest(place.buckets, costs.weight)
    found = [_part(kind, place.buckets[kind], views, costs) for kind in kinds]
    mending = next((part for test in (_is_found, _is_mended) for part in found if test(part)), found[0])
    origins = views[0].graph.origin, views[1].graph.origin
    note = "" if origins[0] == origins[1] else f" ({views[0].name} is {origins[0]}, {views[1].name} is {origins[1]})"
    layers = [*views[0].layers(whole.a), *views[1].layers(whole.b)]
    return Difference(
        kind=kinds[0],
        onnx_nodes=tuple(dict.fromkeys(name for layer in layers for name in layer.onnx_nodes)),
        layers_a=_names(views[0], whole.a),
        layers_b=_names(views[1], whole.b),
        cost_us=costs.us(whole),
        cost_bytes=costs.bytes(whole),
        message="; ".join(part.message for part in found) + note,
        cause=", ".join(dict.fromkeys(part.cause for part in (found[0], mending) if part.cause)),
        remedy=mending.remedy,
        quantizers=tuple(dict.fromkeys(name for part in found for name in part.quantizers)),
        finding=mending.finding,
        group=mending.group,
        region=region,
        parts=tuple(found),
        origins=origins,
        is_shown=costs.is_shown(whole),
    )


def _part(kind: DifferenceClass, group: Group, views: Views, costs: Costs) -> Part:
    words = words_of(kind, group, views, costs.weight(group))
    return Part(
        kind=kind,
        cost_us=costs.us(group),
        cost_bytes=costs.bytes(group),
        message=words.message,
        cause=words.cause,
        remedy=words.remedy.text,
        quantizers=words.quantizers,
        finding=words.remedy.finding,
        group=words.remedy.group,
    )


def _is_found(part: Part) -> bool:
    return bool(part.finding)


def _is_mended(part: Part) -> bool:
    return bool(part.remedy)


def _joined(found: Iterable[Entry]) -> Group:
    a: list[int] = []
    b: list[int] = []
    for entry in found:
        a += entry.layers(0)
        b += entry.layers(1)
    return Group(tuple(sorted(a)), tuple(sorted(b)))


def _names(view: View, indices: Iterable[int]) -> tuple[str, ...]:
    return tuple(layer.name for layer in view.layers(indices))


def _rank(one: Difference) -> tuple[bool, float, bool, int]:
    return one.cost_us is None, -abs(one.cost_us or 0.0), one.cost_bytes is None, -abs(one.cost_bytes or 0)
