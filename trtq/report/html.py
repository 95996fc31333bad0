"""One HTML file a recipe: the modes, where their engines differ and why, with no network and nothing else to keep."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

import trtq
from trtq.report import wording
from trtq.report.chart import chart
from trtq.report.data import ReportData
from trtq.report.difference_table import ComparisonView, first_panes
from trtq.report.groups import scale_group
from trtq.report.linking import layers_json
from trtq.report.mode_table import sections
from trtq.report.picture import picture
from trtq.report.ranges import ranges

SCRIPTS = ("viewer.js", "layers.js", "page.js")


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
    # One function around all, so that the page has no global names of ours.
    script = "".join(("(() => {\n", *(_source(environment, name) for name in SCRIPTS), "})();\n"))
    views = tuple(ComparisonView(comparison, data.graphs) for comparison in data.comparisons)
    return environment.get_template("report.html.j2").render(
        data=data,
        version=trtq.__version__,
        sections=sections(data),
        origins={row.origin for row in data.modes},
        panes=tuple((named, picture(named)) for named in data.graphs),
        first_panes=first_panes(views, len(data.graphs)),
        charts=tuple(map(chart, data.graphs)),
        layers=layers_json(data.graphs, data.matches),
        comparisons=views,
        groups=tuple(map(scale_group, data.groups)),
        ranges=ranges(data.ranges),
        manifest=tuple(_flat(data.manifest)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        css=Markup(_source(environment, "report.css")),
    )


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
    "figure": wording.figure,
    "percent": wording.percent,
    "scale": wording.scale_text,
    "cost": wording.cost_text,
}
