import re
import shutil
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import calls_of
from tests.report import geometry
from trtq.errors import ConfigError, MissingBackendError, TrtqError
from trtq.layers import kinds, read
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.report.flow import flow
from trtq.report.palette import HUES
from trtq.report.style import style
from trtq.report.svg import svg
from trtq.report.view import View
from trtq.report.wording import node_name, operation

SVG = "{http://www.w3.org/2000/svg}"
ENGINES = Path(__file__).resolve().parents[3] / "shared" / "data" / "engines"
RESNET18 = ENGINES / "trt8-resnet18-a100" / "qat.graph.json"
needs_engines = pytest.mark.skipif(not RESNET18.exists(), reason="the folder with real engine files is not here")
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed")


def cards(picture: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(picture).iter() if element.get("data-layer") is not None]


def words(element: ET.Element) -> str:
    return "\n".join(text.text or "" for text in element.iter(f"{SVG}text"))


def chain(layers: int) -> LayerGraph:
    """A network as deep as asked, with a shortcut over every four layers."""
    tensors = [Tensor(f"t{number}", (1, 64, 40, 40), "int8" if number % 2 else "float16") for number in range(layers)]
    rows = [
        Layer(
            f"/model/model.{number}/conv",
            "correlation",
            tuple(dict.fromkeys((tensors[number - 1], tensors[max(number - 4, 0)]))),
            (tensors[number],),
            (f"/model/model.{number}/conv/Conv",),
        )
        for number in range(1, layers)
    ]
    return LayerGraph("compiled", "test", tuple(rows), signals(rows, "compiled"))


@needs_dot
def test_a_compiled_graph_has_one_card_a_layer_and_badges_where_the_signals_count(compiled: LayerGraph) -> None:
    drawn = cards(svg(compiled, "fork · qat"))
    assert [int(card.get("data-layer", "")) for card in drawn] == list(range(len(compiled.layers)))
    badged = ["double write" in words(card) for card in drawn]
    assert badged == [kinds.writes_twice(layer) for layer in compiled.layers]
    assert sum(badged) == compiled.signals.double_writes
    assert sum("marked" in card.get("class", "").split() for card in drawn) >= sum(badged) > 0
    for card, layer in zip(drawn, compiled.layers, strict=True):
        assert operation(layer).split()[0] in words(card)
        assert node_name(layer) in words(card)
        assert layer.name in (card.findtext(f"{SVG}title") or "")


@needs_dot
def test_the_header_says_where_the_graph_comes_from(compiled: LayerGraph) -> None:
    heading = words(ET.fromstring(svg(compiled, "fork · qat")))
    for said in ("fork · qat", "compiled", compiled.source, "sm86", "int8 share"):
        assert said in heading


@needs_dot
@needs_engines
def test_measured_conversions_have_a_shape_and_a_sign_of_their_own() -> None:
    graph = read(RESNET18)
    marked = [card for card in cards(svg(graph, "resnet18")) if "conversion" in words(card)]
    assert len(marked) == graph.signals.conversions == 10
    for card in marked:
        classes = [shape.get("class") for shape in card.iter(f"{SVG}polygon")]
        assert {"block", "on-block"} <= set(classes)
        assert [one.get("class") for one in card.findall(f"{SVG}g")] == ["end-cap float32", "end-cap int8"] or (
            [one.get("class") for one in card.findall(f"{SVG}g")] == ["end-cap float16", "end-cap int8"]
        )
    assert sum("block" in shape.get("class", "") for shape in ET.fromstring(svg(graph, "x")).iter()) > 10, "legend"


@needs_dot
@needs_engines
def test_times_are_the_weight_where_an_engine_was_profiled() -> None:
    graph = read(RESNET18, RESNET18.with_name("qat.profile.json"))
    drawn = cards(svg(graph, "resnet18"))
    heaviest = max(graph.layers, key=lambda layer: layer.time_us or 0)
    widths = {}
    for card in drawn:
        bars = [float(bar.get("width", "")) for bar in card.iter(f"{SVG}rect") if bar.get("class", "") == "bar"]
        widths[int(card.get("data-layer", ""))] = max(bars, default=0.0)
    assert max(widths, key=lambda index: widths[index]) == graph.layers.index(heaviest)
    assert f"{heaviest.time_us:.1f} µs" in words(drawn[graph.layers.index(heaviest)])


@needs_dot
def test_files_without_tensors_are_columns_in_execution_order() -> None:
    layers = tuple(Layer(f"conv{place}", "unknown", (), ()) for place in range(40))
    picture = svg(LayerGraph("measured", "test", layers, signals(layers, "measured")), "names only")
    places = geometry.cards(picture)
    assert len({round(place.left) for place in places}) == 3
    assert all(after.top > before.top for before, after in pairwise(places[:16]))
    assert "names layers and no tensors" in words(ET.fromstring(picture))


@needs_dot
@needs_engines
@pytest.mark.parametrize("view", [View(), View(fold=True), View(only="marked"), View(around="conv", hops=1)], ids=str)
def test_every_real_engine_draws_clearly(view: View) -> None:
    drawn = 0
    for path in sorted(one for one in ENGINES.rglob("*") if one.suffix in (".json", ".log")):
        try:
            picture = svg(read(path), path.name, view=view)
        except ConfigError as error:
            assert re.search("there is nothing to draw|cannot tell|did you mean|is no layer", str(error))
            continue
        except TrtqError:
            continue
        drawn += 1
        assert_clear(picture)
    assert drawn >= 4


@needs_dot
def test_compiled_and_deep_graphs_draw_clearly(compiled: LayerGraph) -> None:
    for graph in (compiled, chain(60)):
        for view in (View(), View(fold=True), View(regions=False)):
            assert_clear(svg(graph, "x", view=view))
    assert_clear(svg(compiled, "x", view=View(only="marked", hops=0)))


def assert_clear(picture: str) -> None:
    """No two cards overlap, no arrow runs through a card or upwards, no card lies half in a frame."""
    boxes, frames = geometry.cards(picture), geometry.frames(picture)
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])
        assert all(frame.holds(box) or not frame.overlaps(box) for frame in frames)
    for line in geometry.arrows(picture):
        assert line[-1][1] >= line[0][1]
        assert not any(box.around(point, 4) for box in boxes for point in line)


@needs_dot
def test_a_folded_card_says_how_many_and_which(compiled: LayerGraph) -> None:
    folded = [card for card in cards(svg(chain(30), "x", view=View(fold=True))) if " " in card.get("data-layer", "")]
    assert not folded, "every layer of this network has two readers"
    straight = tuple(
        Layer(f"/a/conv{place}/Conv", "correlation", (one,), (other,))
        for place, (one, other) in enumerate(pairwise(Tensor(f"t{n}", (1, 8, 4, 4), "int8") for n in range(6)))
    )
    [card] = cards(svg(LayerGraph("compiled", "t", straight, signals(straight, "compiled")), "x", view=View(fold=True)))
    assert card.get("data-layer") == "0 1 2 3 4"
    assert "5 layers" in words(card)
    title = card.findtext(f"{SVG}title") or ""
    assert [f"/a/conv{place}/Conv".strip("/") in title for place in range(5)] == [True] * 5


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb, as WCAG 2 defines it."""
    long = colour[1:] if len(colour) == 7 else "".join(one * 2 for one in colour[1:])
    parts = [int(long[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def colour(sheet: str, selector: str) -> str:
    found = re.search(rf"\.trtq-graph {re.escape(selector)}(?:,[^{{]*)?\{{(?:fill:)(#\w+)", sheet)
    assert found, selector
    return found[1]


@pytest.mark.parametrize("dark", [False, True])
def test_words_are_readable_and_conversions_stand_out_without_colour(dark: bool) -> None:
    light, _, after = style().partition("@media")
    sheet = after if dark else light
    tints = [hue.dark_tint if dark else hue.tint for hue in HUES.values()]
    for tint in tints:
        assert contrast(colour(sheet, "text"), tint) > 7
        assert contrast(colour(sheet, ".soft"), tint) > 4.5
        assert contrast(colour(sheet, ".badge"), tint) > 7, "a block of ink among tints, in greyscale print too"
    assert contrast(colour(sheet, ".badge"), colour(sheet, ".badge-text")) > 7


@needs_dot
@pytest.mark.parametrize(
    "view", [View(), View(fold=True), View(only="double-writes", hops=0), View(around="script")], ids=str
)
def test_hostile_names_stay_text(hostile: LayerGraph, view: View) -> None:
    picture = svg(hostile, hostile.layers[0].name, highlight=[hostile.layers[1].name], view=view)
    root = ET.fromstring(picture)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "style", "g", "title", "rect", "path", "polygon", "text",
    }  # fmt: skip
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    assert view != View() or len(cards(picture)) == len(hostile.layers)
    assert cards(picture)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066\ud800-\udfff]", picture)
    assert max(len(title.text or "") for title in root.iter(f"{SVG}title")) < 16384
    assert "<script>alert(1)</script>" in (root.get("aria-label") or "")


@needs_dot
def test_the_same_graph_gives_the_same_bytes(compiled: LayerGraph, hostile: LayerGraph) -> None:
    for graph in (compiled, hostile):
        assert svg(graph, "twice") == svg(graph, "twice")


@needs_dot
def test_highlight_marks_the_named_layers_alone(compiled: LayerGraph) -> None:
    wanted = compiled.layers[2].name
    lit = [card for card in cards(svg(compiled, "x", highlight=[wanted])) if "lit" in card.get("class", "").split()]
    assert [card.get("data-layer") for card in lit] == ["2"]


@needs_dot
def test_work_grows_in_proportion_to_the_layers() -> None:
    few, many = chain(40), chain(160)
    assert len(cards(svg(many, "deep"))) == 159
    assert calls_of(lambda: svg(many, "deep")) < 5 * calls_of(lambda: svg(few, "deep"))


def test_a_missing_dot_is_one_sentence(compiled: LayerGraph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingBackendError, match="apt-get install graphviz"):
        svg(compiled, "fork")


def test_an_elided_concat_is_read_from_all_who_wrote_a_slice() -> None:
    whole, half = Tensor("concat", (1, 8, 4, 4), "int8"), Tensor("concat", (1, 4, 4, 4), "int8")
    source, end = Tensor("x", (1, 4, 4, 4), "float32"), Tensor("y", (1, 8, 4, 4), "float32")
    layers = (
        Layer("a", "kgen", (source,), (half,)),
        Layer("b", "kgen", (half,), (half,)),
        Layer("c", "correlation", (half,), (Tensor("side", (1, 4, 4, 4), "float32"),)),
        Layer("d", "correlation", (whole,), (end,)),
    )
    arrows = {
        (arrow.tail, arrow.head): arrow.certain
        for arrow in flow(LayerGraph("compiled", "", layers, signals(layers, "compiled"))).arrows
    }
    assert arrows == {(4, 0): True, (0, 1): True, (1, 2): False, (0, 3): True, (1, 3): True, (2, 5): True, (3, 6): True}
