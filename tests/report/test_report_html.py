import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import EXECUTABLE, Browser
from hostile_names import HOSTILE_NAMES

from trtq.compare.difference import Comparison, Difference
from trtq.errors import ModelError
from trtq.layers.graph import LayerGraph
from trtq.report.data import ModeRow, NamedGraph, ReportData
from trtq.report.html import html
from trtq.report.svg import svg

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed")
needs_chromium = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def report(graph: LayerGraph, *, drawn: bool = True) -> ReportData:
    first, last = graph.layers[0].name, graph.layers[-1].name
    picture, signals = svg(graph, "qat") if drawn else None, graph.signals
    return ReportData(
        recipe="fork-digits",
        task="classification of digits",
        verdict=("QAT is within 0.1 points of float.",),
        modes=(
            ModeRow("fp16", {"top-1": 0.98}, 145_928, 1_488_036, build_s=0.3),
            ModeRow("qat", {"top-1": 0.979}, 168_483, 2_091_092, signals, signals, graph.origin, 2, build_s=9.5),
        ),
        graphs=(NamedGraph("qat", graph, picture), NamedGraph("naive", graph, picture)),
        comparisons=(
            Comparison(
                "engines/fork-digits/naive",
                "engines/fork-digits/qat",
                1.0,
                (Difference("double write", (), (first,), (last,), None, -2_048, "two copies", "/stem/relu", "TQ103"),),
                None,
                None,
            ),
        ),
        groups=(
            {"tensors": ["/stem/relu", "/stem/relu"], "joined_by": [], "scales": [0.03, 0.07], "scale": 0.07,
             "coarser_bits": [1.22, 0.0], "predicted_loss_db": 2.1, "measured_loss_db": None, "left": False},
        ),
        manifest={"trtq": "0.1.0", "machine": {"threads": 2}, "inputs": [{"sha256": "ab" * 32}]},
        notes=("ptq is explicit PTQ here.",),
    )  # fmt: skip


def everything_hostile(graph: LayerGraph) -> ReportData:
    names = HOSTILE_NAMES
    differences = tuple(Difference("fusion", (name,), (name,), (name,), None, 1, name, name, name) for name in names)
    return ReportData(
        recipe=names[0],
        task=names[1],
        verdict=names,
        modes=tuple(
            ModeRow(name, {name: 0.5}, 1, 1, graph.signals, origin="compiled", finetune={name: name}) for name in names
        ),
        graphs=tuple(NamedGraph(name, graph, svg(graph, name)) for name in names[:3]),
        comparisons=(Comparison(names[0], names[1], 1.0, differences, None, None),),
        groups=({"tensors": list(names), "joined_by": list(names), "scales": [0.1] * len(names), "scale": 0.1},),
        manifest={name: {name: [name, {name: name}]} for name in names},
        notes=names,
    )


@needs_dot
def test_the_page_needs_no_network_and_no_other_file(compiled: LayerGraph) -> None:
    for tag, attributes in Elements(html(report(compiled))).found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action", "xlink:href", "style"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")


@needs_dot
def test_figures_are_labelled_measured_or_compiled(compiled: LayerGraph) -> None:
    page = html(report(compiled))
    for said in ("measured, ONNX Runtime", '<span class="tag">compiled</span>', "never compared across precisions"):
        assert said in page
    double_writes = compiled.signals.double_writes
    assert f">{double_writes}\u2009→\u2009</span>{double_writes}<" in page
    assert "−0.10" in page
    assert "machine · threads" in page


@needs_dot
def test_hostile_names_add_no_element_and_no_attribute(compiled: LayerGraph, hostile: LayerGraph) -> None:
    page = html(everything_hostile(hostile))
    found = Elements(page).found
    tame = {(tag, name) for tag, attributes in Elements(html(report(compiled))).found for name in (*attributes, "")}
    assert {(tag, name) for tag, attributes in found for name in (*attributes, "")} <= tame
    assert [tag for tag, _ in found].count("script") == 1
    assert "{{ 7 * 7 }}" in page
    assert max(map(len, page.split(">"))) < 12_000


@needs_dot
def test_the_same_data_gives_the_same_bytes(compiled: LayerGraph) -> None:
    assert html(report(compiled)) == html(report(compiled))


def test_without_pictures_the_page_says_how_to_get_them(compiled: LayerGraph) -> None:
    page = html(report(compiled, drawn=False))
    assert "apt-get install graphviz" in page
    assert "<svg" not in page


@pytest.mark.parametrize(
    "picture",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><rect onclick="alert(1)"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><foreignObject/></svg>',
        "<svg",
    ],
)
def test_a_foreign_picture_is_refused(compiled: LayerGraph, picture: str) -> None:
    data = report(compiled, drawn=False)
    with pytest.raises(ModelError, match="draw it again"):
        html(replace(data, graphs=(NamedGraph("qat", compiled, picture),)))


def test_an_empty_report_is_a_page() -> None:
    page = html(ReportData("recipe", "task", (), ()))
    assert "Nothing was recorded." in page


@needs_chromium
@needs_dot
def test_the_page_works_in_a_browser(compiled: LayerGraph, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html(report(compiled)))
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        assert browser.evaluate("document.querySelector('.tools').hidden") is False
        width = "document.querySelector('.viewer svg').clientWidth"
        before = browser.evaluate(width)
        browser.evaluate("document.querySelector('.viewer').focus()")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="+", text="+")
        assert browser.evaluate(width) == pytest.approx(before * 1.25, abs=2)
        browser.evaluate("document.querySelector('[data-zoom=full]').click()")
        assert browser.evaluate(width) == pytest.approx(before, abs=2)
        browser.evaluate("document.querySelector('a[data-layers]').click()")
        lit = "[...document.querySelectorAll('.lit')].map(card => [card.closest('details').id, card.dataset.layer])"
        assert browser.evaluate(lit) == [["graph-1", "0"]]
        assert browser.evaluate("document.getElementById('graph-1').open") is True
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth") is True
        assert browser.problems == []
    finally:
        browser.close()


@needs_chromium
@needs_dot
def test_hostile_names_run_nothing_in_a_browser(hostile: LayerGraph, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html(everything_hostile(hostile)))
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        assert browser.evaluate("document.scripts.length") == 1
        assert browser.evaluate("document.querySelectorAll('img, iframe, [onload], [onerror]').length") == 0
        assert browser.problems == []
    finally:
        browser.close()
