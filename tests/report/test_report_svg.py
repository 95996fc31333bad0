import re
import shutil
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from trtq.errors import MissingBackendError
from trtq.layers import kinds, read
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.report.flow import flow
from trtq.report.svg import svg
from trtq.report.wording import node_name, operation

SVG = "{http://www.w3.org/2000/svg}"
RESNET18 = Path(__file__).resolve().parents[3] / "shared" / "data" / "engines" / "trt8-resnet18-a100" / "qat.graph.json"
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
def test_measured_conversions_are_marked() -> None:
    if not RESNET18.exists():
        pytest.skip("the folder with real engine files is not here")
    graph = read(RESNET18)
    marked = [card for card in cards(svg(graph, "resnet18")) if "conversion" in words(card)]
    assert len(marked) == graph.signals.conversions == 10


@needs_dot
def test_hostile_names_stay_text(hostile: LayerGraph) -> None:
    picture = svg(hostile, hostile.layers[0].name, highlight=[hostile.layers[1].name])
    root = ET.fromstring(picture)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "style", "g", "title", "rect", "path", "polygon", "text",
    }  # fmt: skip
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    assert len(cards(picture)) == len(hostile.layers)
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
def test_four_hundred_layers_are_drawn_in_seconds() -> None:
    graph = chain(400)
    start = time.perf_counter()
    assert len(cards(svg(graph, "deep"))) == 399
    assert time.perf_counter() - start < 15


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
