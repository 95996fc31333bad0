"""The page in a browser: what people do with it, by mouse and by keyboard, on the screen and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.browser import EXECUTABLE, Browser
from trtq.compare import align, compare
from trtq.layers.graph import LayerGraph
from trtq.report.data import Match, ModeRow, NamedGraph, RangeRow, ReportData
from trtq.report.html import html
from trtq.report.svg import svg

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
    pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed"),
]
LIT = "[...document.querySelectorAll('.lit')].map(one => one.closest('.pane').id + ':' + one.dataset.layer)"
SHOWN = "[...document.querySelectorAll('.pane')].filter(one => !one.hidden).map(one => one.id)"
FOCUSED = "(document.activeElement.id || document.activeElement.className || document.activeElement.tagName)"
MANY_LAYERS = 400


@pytest.fixture(scope="module")
def data(compiled: LayerGraph, unified: LayerGraph) -> ReportData:
    graphs = {"fp32": compiled, "naive": compiled, "ptq": unified}
    pairs = (("fp32", "naive"), ("fp32", "ptq"), ("naive", "ptq"))
    return ReportData(
        recipe="fork",
        task="classification",
        verdict=("one", "two", "three"),
        modes=tuple(ModeRow(mode, signals=graph.signals, origin=graph.origin) for mode, graph in graphs.items()),
        graphs=tuple(NamedGraph(mode, graph, svg(graph, mode)) for mode, graph in graphs.items()),
        comparisons=(compare(compiled, unified, "naive", "ptq"),),
        matches=tuple(Match(a, b, align(graphs[a], graphs[b]).groups) for a, b in pairs),
        ranges=(RangeRow("/stem/silu", {"ptq": 3.81}),),
    )


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"), 1440, 900)
    yield browser
    browser.close()


@pytest.fixture
def page(chromium: Browser, data: ReportData, tmp_path: Path) -> Iterator[Browser]:
    file = tmp_path / "report.html"
    file.write_text(html(data))
    chromium.problems.clear()
    chromium.media()
    chromium.resize(1440, 900)
    chromium.open(file)
    yield chromium
    assert chromium.problems == []


def box(page: Browser, selector: str) -> tuple[float, float]:
    found = page.evaluate(
        f"(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    return found[0], found[1]


def partner(data: ReportData, layer: int) -> list[int]:
    """Return the layers of ptq that compute what a layer of naive does."""
    return [other for group in data.matches[2].groups if layer in group.a for other in group.b]


def test_it_opens_with_the_two_engines_that_differ_side_by_side(page: Browser) -> None:
    assert page.evaluate(SHOWN) == ["graph-1", "graph-2"]
    left, right = (box(page, f"#graph-{number} .viewer") for number in (1, 2))
    assert left[1] == right[1]
    assert left[0] < 720 < right[0]


def test_search_finds_onnx_names_on_both_sides_and_enter_goes_from_hit_to_hit(page: Browser, data: ReportData) -> None:
    wanted = [index for index, layer in enumerate(data.graphs[1].graph.layers) if "/right/Conv" in layer.onnx_nodes]
    page.evaluate("document.getElementById('find').focus()")
    page.call("Input.insertText", text="/RIGHT/conv")
    page.press("Enter")
    assert page.evaluate(LIT) == [f"graph-1:{wanted[0]}", *(f"graph-2:{one}" for one in partner(data, wanted[0]))]
    said = page.evaluate("document.getElementById('hits').textContent")
    assert said.startswith("hit 1 of ")
    page.press("Enter")
    assert page.evaluate("document.getElementById('hits').textContent").startswith("hit 2 of ")
    assert page.evaluate("document.querySelectorAll('.found').length") == int(said.split()[3].strip(","))
    assert page.evaluate("document.activeElement.id") == "find"


def test_a_click_on_a_difference_shows_its_layers_on_both_sides(page: Browser, data: ReportData) -> None:
    first = data.comparisons[0].differences[0]
    expected = [
        f"graph-{number}:{index}"
        for number, names in ((1, first.layers_a), (2, first.layers_b))
        for index, layer in enumerate(data.graphs[number].graph.layers)
        if layer.name in names
    ]
    page.evaluate("document.querySelector('#graph-1 select').value = '0'")
    page.evaluate("document.querySelector('#graph-1 select').dispatchEvent(new Event('change'))")
    assert page.evaluate(SHOWN) == ["graph-0", "graph-2"]
    page.evaluate("document.querySelector('.differences tbody tr td').click()")
    assert page.evaluate(SHOWN) == ["graph-1", "graph-2"]
    assert sorted(page.evaluate(LIT)) == sorted(expected)
    assert page.evaluate("[...document.querySelectorAll('#detail h3')].map(one => one.textContent)") == ["naive", "ptq"]
    assert first.layers_a[0] in page.evaluate("document.getElementById('detail').textContent")
    for number in {one.split(":")[0] for one in expected}:
        frame, card = box(page, f"#{number} .viewer"), box(page, f"#{number} .lit")
        assert abs(frame[0] - card[0]) < 300
        assert abs(frame[1] - card[1]) < 300


def test_pointing_at_a_layer_marks_its_partner_and_a_click_keeps_both(page: Browser, data: ReportData) -> None:
    page.evaluate("document.querySelector('#graph-1 .viewer').scrollIntoView()")
    page.evaluate("document.querySelector('#graph-1 .viewer').focus()")
    page.press("n")
    page.press("Escape")
    x, y = box(page, '#graph-1 [data-layer="0"]')
    page.mouse("mouseMoved", x, y)
    near = "[...document.querySelectorAll('.near')].map(one => one.closest('.pane').id + ':' + one.dataset.layer)"
    expected = ["graph-1:0", *(f"graph-2:{one}" for one in partner(data, 0))]
    assert len(expected) > 1
    assert page.evaluate(near) == expected
    page.mouse("mousePressed", x, y)
    page.mouse("mouseReleased", x, y)
    page.mouse("mouseMoved", 5, 5)
    assert page.evaluate(near) == []
    assert page.evaluate(LIT) == expected


def test_a_partner_out_of_sight_is_told_of(page: Browser, data: ReportData) -> None:
    page.evaluate("document.querySelector('#graph-1 .viewer').focus()")
    page.press("n")
    page.evaluate("document.querySelector('#graph-2 .viewer').focus()")
    page.press("+", 6)
    page.evaluate("document.querySelector('#graph-2 .viewer').scrollTo(0, 1e6)")
    x, y = box(page, '#graph-1 [data-layer="0"]')
    page.mouse("mouseMoved", x, y)
    hint = "[...document.querySelectorAll('.hint')].filter(one => !one.hidden).map(one => one.textContent)"
    assert partner(data, 0)
    assert page.evaluate(hint) == ["↑ the counterpart is further up"]
    page.mouse("mouseMoved", 5, 5)
    assert page.evaluate(hint) == []


def test_a_graph_zooms_and_pans_by_keys_buttons_wheel_and_drag(page: Browser) -> None:
    page.evaluate("document.querySelector('#graph-1 .viewer').scrollIntoView()")
    width = "document.querySelector('#graph-1 svg').clientWidth"
    top = "document.querySelector('#graph-1 .viewer').scrollTop"
    page.evaluate("document.querySelector('#graph-1 [data-zoom=full]').click()")
    full = page.evaluate(width)
    page.evaluate("document.querySelector('#graph-1 .viewer').focus()")
    page.press("+", 2)
    assert page.evaluate(width) == pytest.approx(full * 1.25**2, abs=2)
    x, y = box(page, "#graph-1 .viewer")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=120, modifiers=2)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate(width) == pytest.approx(full * 1.25**2 * 2.718 ** (-120 / 300), rel=0.02)
    assert page.evaluate("window.visualViewport.scale") == 1
    page.evaluate("document.querySelector('#graph-1 .viewer').scrollTo(0, 0)")
    page.mouse("mousePressed", x, y)
    page.mouse("mouseMoved", x, y - 60, buttons=1)
    page.mouse("mouseReleased", x, y - 60)
    assert page.evaluate(top) == 60
    assert page.evaluate(LIT) == []
    page.press("ArrowDown")
    page.evaluate("new Promise(done => setTimeout(done, 400))")
    assert page.evaluate(top) > 60


def test_every_part_is_reached_and_left_by_keyboard_and_focus_is_seen(page: Browser) -> None:
    visited = []
    for _ in range(200):
        page.press("Tab")
        visited.append(page.evaluate(FOCUSED))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        if visited[-1] == "BODY":
            break
        assert outline != "none", visited[-1]
    assert visited[0] == "skip"
    for part in ("find", "viewer", "SELECT", "SUMMARY", "scroll"):
        assert part in visited
    assert visited[-1] == "BODY"
    page.evaluate("document.querySelector('a[data-show]').focus()")
    page.press("Enter")
    assert page.evaluate(LIT)
    assert page.evaluate(FOCUSED) == "viewer"


def test_arrow_keys_change_the_chart_and_a_bar_leads_to_its_layer(page: Browser) -> None:
    open_charts = "[...document.querySelectorAll('.chart')].filter(one => !one.hidden).map(one => one.id)"
    assert page.evaluate(open_charts) == ["chart-1"]
    page.evaluate("document.getElementById('tab-1').focus()")
    page.press("ArrowRight")
    assert page.evaluate(open_charts) == ["chart-2"]
    wanted = page.evaluate("document.querySelector('#chart-2 a[data-show]').dataset.show")
    page.evaluate("document.querySelector('#chart-2 a[data-show]').click()")
    assert "graph-" + wanted in page.evaluate(LIT)


def test_choosing_the_other_sides_engine_swaps_the_two(page: Browser) -> None:
    page.evaluate("document.querySelector('#graph-1 select').value = '2'")
    page.evaluate("document.querySelector('#graph-1 select').dispatchEvent(new Event('change', {bubbles: true}))")
    assert page.evaluate(SHOWN) == ["graph-1", "graph-2"]
    assert box(page, "#graph-2")[0] < box(page, "#graph-1")[0]
    assert page.evaluate("document.activeElement.closest('.pane').id") == "graph-2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1440, 800, 400])
def test_nothing_sticks_out_and_words_stand_off_their_ground(page: Browser, scheme: str, width_px: int) -> None:
    page.resize(width_px, 900)
    page.media(scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth") is True
    for selector in ("main", ".soft", "a[data-show]", ".cheap, .dear", ".tag"):
        assert page.evaluate(CONTRAST.replace("SELECTOR", selector)) > 4.5, selector


def test_on_paper_all_is_there_and_no_button_is(page: Browser) -> None:
    page.media("print")
    for selector in (".finder", ".tools", ".keys", ".tabs", ".pane select"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).display") == "none", selector
    for selector in (".viewer", ".scroll"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).overflowY") == "visible"
    assert len(page.call("Page.printToPDF")["data"]) > 20_000


def test_without_pictures_a_bar_still_tells_of_a_layer_and_its_partner(
    chromium: Browser, data: ReportData, tmp_path: Path
) -> None:
    file = tmp_path / "bare.html"
    file.write_text(html(replace(data, graphs=tuple(replace(one, svg=None) for one in data.graphs))))
    chromium.problems.clear()
    chromium.open(file)
    chromium.evaluate("document.querySelector('#chart-1 a[data-show]').click()")
    headings = "[...document.querySelectorAll('#detail h3')].map(one => one.textContent)"
    assert chromium.evaluate(headings) == ["naive", "ptq"]
    assert chromium.evaluate("document.activeElement.id") == "detail"
    assert chromium.problems == []


def test_a_command_is_copied(page: Browser, data: ReportData) -> None:
    page.call("Page.bringToFront")
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    command = page.evaluate("document.querySelector('.command code').textContent")
    page.evaluate("document.querySelector('button[data-copy]').click()")
    page.evaluate("new Promise(done => setTimeout(done, 200))")
    assert command.startswith("trtq ")
    assert page.evaluate("document.querySelector('button[data-copy]').textContent") == "copied"
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_four_hundred_layers_do_not_make_pointing_slow(
    chromium: Browser, data: ReportData, compiled: LayerGraph, tmp_path: Path
) -> None:
    copies = -(-MANY_LAYERS // len(compiled.layers))
    layers = tuple(replace(layer, name=f"{layer.name}.{copy}") for copy in range(copies) for layer in compiled.layers)
    graph = replace(compiled, layers=layers)
    many = tuple(NamedGraph(mode, graph, svg(graph, mode)) for mode in ("naive", "ptq"))
    file = tmp_path / "many.html"
    file.write_text(html(replace(data, graphs=many, matches=(Match("naive", "ptq", align(graph, graph).groups),))))
    chromium.open(file)
    chromium.evaluate("document.querySelector('#graph-0 .viewer').scrollIntoView()")
    median_ms = chromium.evaluate(HOVER_ALL)
    assert median_ms < 16


CONTRAST = """(() => {
  const light = (words) => {
    const [r, g, b] = words.match(/[\\d.]+/g).map(Number).map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let ground = document.querySelector('SELECTOR');
  const ink = light(getComputedStyle(ground).color);
  while (getComputedStyle(ground).backgroundColor.endsWith(', 0)')) ground = ground.parentElement;
  const paper = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})()"""
# The median time from the event to the next layout, which holds all that the page does about it.
HOVER_ALL = """(() => {
  const times = [...document.querySelectorAll('#graph-0 [data-layer]')].map((card) => {
    const started = performance.now();
    card.dispatchEvent(new PointerEvent('pointerover', { bubbles: true }));
    document.body.offsetHeight;
    return performance.now() - started;
  }).sort((one, other) => one - other);
  return times[times.length >> 1];
})()"""
