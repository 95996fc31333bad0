import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.browser import EXECUTABLE, Browser
from tests.report.hostile_names import HOSTILE_NAMES
from trtq.bench import BenchResult
from trtq.compare import align
from trtq.compare.difference import Comparison, Difference, Part, Role
from trtq.errors import ModelError
from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import signals
from trtq.report.data import Match, ModeRow, NamedGraph, RangeRow, ReportData
from trtq.report.difference_table import ComparisonView
from trtq.report.html import html
from trtq.report.svg import svg
from trtq.report.wording import printable

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed")
needs_chromium = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")


# Ten runs of 1 to 10 ms.
TIMED = BenchResult(
    "qat",
    "rtx",
    2,
    tuple(1000.0 * run for run in range(1, 11)),
    machine={"cpu": "a CPU", "gpus": [{"name": "a GPU"}]},
    dialect="TensorRT-RTX 1.7.1",
)


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
    picture, figures = svg(graph, "qat") if drawn else None, graph.signals
    return ReportData(
        recipe="fork-digits",
        task="classification of digits",
        verdict=("QAT is within 0.1 points of float.",),
        modes=(
            ModeRow("fp16", {"top-1": 0.98}, 145_928, 1_488_036, build_s=0.3),
            ModeRow("qat", {"top-1": 0.979}, 168_483, 2_091_092, figures, figures, graph.origin, 2, build_s=9.5),
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
        matches=(Match("qat", "naive", align(graph, graph).groups),),
        benches={"qat": (TIMED,)},
        ranges=(RangeRow("/stem/silu", {"qat": 3.81}),),
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
        matches=(Match(names[0], names[1], align(graph, graph).groups),),
        benches={name: (BenchResult(name, name, 1, (1.0,), notes=names),) for name in names},
        ranges=tuple(RangeRow(name, {name: 1.0}) for name in names),
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
    for said in (
        '<span class="tag">measured</span> <span class="tag">ONNX Runtime</span>',
        '<span class="tag">compiled</span>',
        "never compared across precisions",
    ):
        assert said in page
    double_writes = compiled.signals.double_writes
    assert f">{double_writes} → </span>{double_writes}<" in page
    assert "−0.10" in page
    assert "machine · threads" in page


@needs_dot
def test_hostile_names_add_no_element_and_no_attribute(compiled: LayerGraph, hostile: LayerGraph) -> None:
    page = html(everything_hostile(hostile))
    found = Elements(page).found
    tame = {(tag, name) for tag, attributes in Elements(html(report(compiled))).found for name in (*attributes, "")}
    assert {(tag, name) for tag, attributes in found for name in (*attributes, "")} <= tame
    scripts = [attributes.get("type") for tag, attributes in found if tag == "script"]
    assert scripts == ["application/json", None]
    assert "{{ 7 * 7 }}" in page
    shown, _, known = page.partition('<script type="application/json"')
    assert max(map(len, shown.split(">"))) < 12_000
    document = json.loads(known.partition(">")[2].partition("</script>")[0])
    assert document["modes"][0]["layers"][0][1] == printable(HOSTILE_NAMES[0])


@needs_dot
def test_the_same_data_gives_the_same_bytes(compiled: LayerGraph) -> None:
    assert html(report(compiled)) == html(report(compiled))


def test_without_pictures_the_page_says_how_to_get_them(compiled: LayerGraph) -> None:
    page = html(report(compiled, drawn=False))
    assert "apt-get install graphviz" in page
    assert 'class="viewer"' not in page
    assert ">share of the heaviest<" in page


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


@needs_dot
def test_speed_names_its_machine_and_what_was_not_run(compiled: LayerGraph) -> None:
    page = html(report(compiled))
    assert '<span class="tag">TensorRT-RTX 1.7.1</span> <span class="where">a GPU, batch 2</span>' in page
    assert ">not run<" in page
    assert ">363.6<" in page
    assert "a GPU’s speed differs" not in page
    on_cpu = replace(TIMED, backend="ort", dialect="")
    page = html(replace(report(compiled), benches={"qat": (on_cpu,)}))
    assert '<span class="tag">ort</span> <span class="where">a CPU, batch 2</span>' in page
    assert "a GPU’s speed differs" in page


def test_without_a_benchmark_every_mode_says_so() -> None:
    page = html(ReportData("recipe", "task", (), (ModeRow("fp32"), ModeRow("qat"))))
    assert page.count(">not benchmarked<") == 2


def test_speeds_are_set_against_each_other_where_they_compare_and_differ() -> None:
    rows = (ModeRow("fp32"), ModeRow("ptq"), ModeRow("qat"))
    times = tuple(1000.0 + run % 7 for run in range(100))
    base = replace(TIMED, name="fp32", times_us=times)
    twice = replace(base, name="qat", times_us=tuple(time / 2 for time in times))

    def page(**results: BenchResult) -> str:
        benches = {mode: (one,) for mode, one in results.items()}
        return html(ReportData("recipe", "task", (), rows, benches=benches))

    said = r'times as fast as fp32.*?>2\.00 <span class="change">2\.00 to 2\.0\d'
    assert re.search(said, page(fp32=base, qat=twice), re.DOTALL)
    assert ">no difference shown<" in page(fp32=base, qat=replace(base, name="qat"))
    assert ">not comparable<" in page(fp32=base, qat=replace(twice, options={"streams": 2}))
    assert "times as fast" not in page(fp32=base)


def test_an_engine_that_tells_names_alone_has_no_bars_and_says_why(compiled: LayerGraph) -> None:
    bare = tuple(Layer(layer.name, layer.kind, (), ()) for layer in compiled.layers)
    graph = replace(compiled, origin="measured", layers=bare, signals=signals(bare, "measured"))
    page = html(replace(report(compiled, drawn=False), graphs=(NamedGraph("qat", graph),), comparisons=()))
    assert "cannot be ranked" in page
    assert ">share of the heaviest<" not in page


@needs_dot
def test_one_mode_alone_is_one_pane_without_a_choice_of_charts(compiled: LayerGraph) -> None:
    data = report(compiled)
    found = Elements(
        html(replace(data, modes=data.modes[1:], graphs=data.graphs[:1], comparisons=(), matches=()))
    ).found
    assert [attributes["data-first"] for _, attributes in found if "data-first" in attributes] == ["0"]
    assert not [tag for tag, attributes in found if attributes.get("role") == "tablist"]


def test_modes_of_equal_ranges_share_a_column() -> None:
    rows = (RangeRow("x", {"ptq": 12.7, "qat": 12.7}), RangeRow("y", {"ptq": 2.54, "qat": 2.54}))
    page = html(ReportData("recipe", "task", (), (), ranges=rows))
    assert "ptq and qat amax" in page
    assert ">0.1000<" in page
    assert 'class="filled" width="20.00"' in page
    moved = (*rows, RangeRow("z", {"ptq": 1.0, "qat": 2.0}))
    page = html(ReportData("recipe", "task", (), (), ranges=moved))
    assert ">ptq amax<" in page
    assert ">qat amax<" in page


def test_an_empty_report_is_a_page() -> None:
    page = html(ReportData("recipe", "task", (), ()))
    assert "Nothing was recorded." in page


@needs_chromium
@needs_dot
def test_hostile_names_run_nothing_in_a_browser(hostile: LayerGraph, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html(everything_hostile(hostile)))
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        assert browser.evaluate("document.scripts.length") == 2
        browser.evaluate("document.querySelector('[data-show]').click()")
        browser.evaluate("document.getElementById('find').value = 'script'")
        browser.evaluate("document.getElementById('find').focus()")
        browser.press("Enter")
        assert "<script>" in browser.evaluate("document.getElementById('detail').textContent")
        assert browser.evaluate("document.querySelectorAll('img, iframe, [onload], [onerror]').length") == 0
        assert browser.problems == []
    finally:
        browser.close()


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        (
            "trtq unify a.onnx -o OUT.onnx: one scale for x, y",
            ("", "trtq unify a.onnx -o OUT.onnx", "one scale for x, y"),
        ),
        ("by hand, TQ204 a-name: trtq lint 'a b.onnx'", ("by hand, TQ204 a-name", "trtq lint 'a b.onnx'", "")),
        ("trtq lint m.onnx --select TQ201 --fix (a-name)", ("", "trtq lint m.onnx --select TQ201 --fix", "(a-name)")),
        ("trtq unify, where scales differ", ("trtq unify, where scales differ", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_remedys_command_stands_alone_to_be_copied(remedy: str, words: tuple[str, str, str]) -> None:
    difference = Difference("double write", (), ("a",), (), None, 1, "message", remedy=remedy)
    view = ComparisonView(Comparison("naive", "ptq", 1.0, (difference,), None, None), ())
    [row] = view.rows
    assert (row.about.before, row.about.command, row.about.after) == words
    assert ("<button" in html(ReportData("r", "t", (), (), comparisons=(view.comparison,)))) is bool(words[1])


def test_totals_parts_and_what_is_not_shown_are_on_the_page() -> None:
    parts = tuple(Part("fusion", float(cost), None, f"part {cost}") for cost in range(3))
    both = Difference("fusion", (), (), (), 12.5, None, "both", region="layer1.0", parts=parts)
    hardly = Difference("other tactic", (), (), (), 0.1, None, "hardly", is_shown=False, origins=("measured",) * 2)
    role = Role("pools", 2, 1, 10.0, 4.0, None, None)
    comparison = Comparison("a", "b", 0.9, (both, hardly), 14.0, 1.4, roles=(role,), notes=("a note",))
    page = html(ReportData("r", "t", (), (), comparisons=(comparison,)))
    for said in (
        "+14.0 µs",
        "+1.4 µs",
        "3 changes in one place",
        "part 2",
        "layer1.0",
        "no difference shown",
        "a note",
    ):
        assert said in page, said
    assert "−6.0 µs" in page
    assert '<span class="tag">measured</span>' in page
