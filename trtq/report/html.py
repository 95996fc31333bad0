"""One HTML file a recipe: the modes, where their engines differ and why, with no network and nothing else to keep."""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup

import trtq
from trtq.compare.difference import Comparison, Difference
from trtq.errors import ModelError
from trtq.layers.graph import LayerGraph, Signals
from trtq.report import wording
from trtq.report.data import AS_EXPORTED, NATIVE, ModeRow, NamedGraph, ReportData, accuracies
from trtq.report.groups import scale_group

LINKED_LAYERS = 40
SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
DRAWN = frozenset({"svg", "style", "g", "title", "rect", "path", "polygon", "text"})
DRAWN_ATTRIBUTES = frozenset(
    {"class", "width", "height", "viewBox", "role", "aria-label", "transform", "data-layer"}
    | {"x", "y", "rx", "d", "stroke-width", "points"}
)


def html(data: ReportData) -> str:
    """Return the report as one self-contained HTML document; the same data gives the same bytes.

    Raises `ModelError` when a picture in `data.graphs` is not one that `report.svg.svg` drew.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trtq.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(FILTERS)
    measured = accuracies(data.modes)
    script = _source(environment, "report.js")
    return environment.get_template("report.html.j2").render(
        data=data,
        version=trtq.__version__,
        metrics=_metrics(measured),
        rows=tuple(zip(data.modes, measured, strict=True)),
        origins=tuple(dict.fromkeys(row.origin for row in data.modes if row.origin)),
        pictures=tuple(_picture(named) for named in data.graphs),
        comparisons=tuple(_View(comparison, data.graphs) for comparison in data.comparisons),
        groups=tuple(map(scale_group, data.groups)),
        manifest=tuple(_flat(data.manifest)),
        accuracy_change=_AccuracyChange(measured),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        css=Markup(_source(environment, "report.css")),
    )


@dataclass(frozen=True)
class _Link:
    """Where a difference is to be seen: the picture's number and the layers' indices in it."""

    mode: str
    picture: int
    layers: tuple[int, ...]


class _View:
    """A comparison with its differences' layers found in the pictures."""

    def __init__(self, comparison: Comparison, graphs: Sequence[NamedGraph]) -> None:
        self.comparison = comparison
        self.sides = tuple(_named(graphs, side) for side in (comparison.a, comparison.b))
        self.names = tuple(PurePath(side).name or side for side in (comparison.a, comparison.b))
        self._indices = [None if side is None else _indices(graphs[side].graph) for side in self.sides]

    def links(self, difference: Difference) -> tuple[_Link, ...]:
        """Return the link into each side's picture; none where a side has no picture or no such layer."""
        found = []
        for side, name, layers, where in zip(
            self.sides, self.names, (difference.layers_a, difference.layers_b), self._indices, strict=True
        ):
            known = [where[layer] for layer in layers if layer in where] if where else []
            if side is not None and known:
                found.append(_Link(name, side, tuple(known[:LINKED_LAYERS])))
        return tuple(found)


class _AccuracyChange:
    """Accuracy against the first mode in points of a percent, "" for the first mode itself."""

    def __init__(self, measured: Sequence[Mapping[str, float]]) -> None:
        self._first = measured[0] if measured else {}

    def __call__(self, accuracy: Mapping[str, float], metric: str) -> str:
        compared = metric.removesuffix(NATIVE) + AS_EXPORTED if metric.endswith(NATIVE) else metric
        if accuracy is self._first or metric not in accuracy or compared not in self._first:
            return ""
        points = (accuracy[metric] - self._first[compared]) * 100
        return wording.signed(f"{points:.2f}", points)


def _picture(named: NamedGraph) -> tuple[NamedGraph, Markup | None]:
    """Check a picture, which may come from a file, and write it anew: browsers read HTML more freely than XML."""
    if named.svg is None:
        return named, None
    try:
        root = ET.fromstring(named.svg)
    except ET.ParseError as error:
        raise ModelError(f"the picture of mode '{named.mode}' is not SVG ({error}); draw it again") from error
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG_NAMESPACE)
        if element.tag not in DRAWN or not element.attrib.keys() <= DRAWN_ATTRIBUTES:
            raise ModelError(
                f"the picture of mode '{named.mode}' holds a foreign <{element.tag}>; draw it again with `trtq graph`"
            )
    root.set("xmlns", SVG_NAMESPACE.strip("{}"))
    return named, Markup(ET.tostring(root, encoding="unicode"))


def _named(graphs: Sequence[NamedGraph], side: str) -> int | None:
    wanted = (side, PurePath(side).name)
    return next((number for number, named in enumerate(graphs) if named.svg and named.mode in wanted), None)


def _indices(graph: LayerGraph) -> dict[str, int]:
    return {layer.name: index for index, layer in enumerate(graph.layers)}


def _metrics(measured: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(metric for one in measured for metric in one))


def _before(row: ModeRow, signal: str) -> str:
    """Return "20 → " where the mode's engine was also built before unification and the signal is known."""
    naive: int | None = getattr(row.naive_signals, signal) if row.naive_signals else None
    return "" if naive is None else f"{wording.figure(naive)}\u2009→\u2009"


def _signal(signals: Signals | None, name: str) -> str:
    value = getattr(signals, name) if signals else None
    return wording.percent(value) if name == "int8_share" else wording.figure(value)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not path):
        for key in value:
            yield from _flat(value[key], f"{path} · {key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{path} · {number}")
    elif isinstance(value, list | tuple):
        yield path, ", ".join(map(str, value)) or wording.MISSING
    else:
        yield path, wording.MISSING if value is None or value == {} else str(value)


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


FILTERS = {
    "printable": wording.printable,
    "bytes": wording.bytes_text,
    "figure": wording.figure,
    "percent": wording.percent,
    "scale": wording.scale_text,
    "cost": wording.cost_text,
    "signal": _signal,
    "before": _before,
}
