"""Views: chains folded, parts asked for; nothing is lost, and no arrow runs backwards."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtq.errors import ConfigError
from trtq.layers import read
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.report.flow import flow
from trtq.report.marks import marks
from trtq.report.view import Plan, View, plan

RESNET18 = Path(__file__).resolve().parents[3] / "shared" / "data" / "engines" / "trt8-resnet18-a100"
needs_engines = pytest.mark.skipif(not RESNET18.is_dir(), reason="the folder with real engine files is not here")
KINDS = ("CaskConvolution", "CaskPooling", "Reformat QDQ", "Reformat REFORMAT")


def planned(graph: LayerGraph, view: View) -> Plan:
    return plan(graph, flow(graph), view)


def resnet18() -> LayerGraph:
    return read(RESNET18 / "qat.graph.json", RESNET18 / "qat.profile.json")


@st.composite
def networks(draw: st.DrawFn) -> LayerGraph:
    """Up to 24 layers, each reading one or two of the six tensors before it, of a module and a precision of its own."""
    tensors = [Tensor("in", (1, 8, 4, 4), "float16")]
    layers = []
    for number in range(draw(st.integers(1, 24))):
        read = draw(st.sets(st.integers(max(0, number - 5), number), min_size=1, max_size=2))
        dtype: DType = draw(st.sampled_from(("int8", "float16")))
        tensors.append(Tensor(f"t{number}", (1, 8, 4, 4), dtype))
        name = f"/{draw(st.sampled_from('ab'))}/Conv_{number}"
        inputs = tuple(tensors[place] for place in sorted(read))
        layers.append(Layer(name, draw(st.sampled_from(KINDS)), inputs, (tensors[-1],), (name,)))
    return LayerGraph("measured", "test", tuple(layers), signals(layers, "measured"))


def runs_forwards(shown: Plan) -> bool:
    """Tell whether boxes can be put in an order in which no arrow runs backwards."""
    waiting = {(arrow.tail, arrow.head) for arrow in shown.arrows}
    while waiting:
        ready = {tail for tail, _ in waiting} - {head for _, head in waiting}
        if not ready:
            return False
        waiting = {(tail, head) for tail, head in waiting if tail not in ready}
    return True


@settings(max_examples=60, deadline=None)
@given(networks(), st.booleans(), st.sampled_from([None, "marked", "reformats"]), st.integers(0, 3))
def test_every_layer_is_in_one_box_at_most_and_arrows_run_forwards(
    graph: LayerGraph, fold: bool, only: str | None, hops: int
) -> None:
    try:
        shown = planned(graph, View(fold=fold, only=only, hops=hops))
    except ConfigError as error:
        assert "there is nothing to draw" in str(error)
        return
    drawn = [index for box in shown.boxes for index in box.layers]
    assert len(drawn) == len(set(drawn))
    assert only is not None or sorted(drawn) == list(range(len(graph.layers)))
    assert runs_forwards(shown)
    framed = [box for region in shown.regions for box in region.layers]
    assert len(framed) == len(set(framed))


@settings(max_examples=60, deadline=None)
@given(networks())
def test_a_folded_chain_is_straight_and_hides_nothing(graph: LayerGraph) -> None:
    links = flow(graph)
    for box in planned(graph, View(fold=True)).boxes:
        layers = [graph.layers[index] for index in box.layers]
        for before, after in zip(box.layers, box.layers[1:], strict=False):
            assert {arrow.head for arrow in links.arrows if arrow.tail == before} == {after}
            assert {arrow.tail for arrow in links.arrows if arrow.head == after} == {before}
        if len(layers) > 1:
            assert not any(marks(layer, graph.origin) for layer in layers)
            assert len({tensor.dtype for layer in layers for tensor in layer.inputs}) == 1


def test_a_straight_chain_is_one_card() -> None:
    tensors = [Tensor(f"t{number}", (1, 8, 4, 4), "int8") for number in range(6)]
    layers = tuple(
        Layer(f"Conv_{place}", "CaskConvolution", (tensors[place],), (tensors[place + 1],)) for place in range(5)
    )
    shown = planned(LayerGraph("measured", "test", layers, signals(layers, "measured")), View(fold=True))
    assert [(box.layers, box.kind) for box in shown.boxes] == [((0, 1, 2, 3, 4), "chain")]
    assert len(shown.arrows) == len(shown.ports) == 2


def test_a_chain_with_its_middle_left_out_is_two_cards() -> None:
    names = ["Reformat QDQ", *["CaskConvolution"] * 6, "Reformat QDQ"]
    tensors = [Tensor(f"t{number}", (1, 8, 4, 4), "int8") for number in range(len(names) + 1)]
    layers = tuple(
        Layer(f"layer_{place}", kind, (tensors[place],), (tensors[place + 1],)) for place, kind in enumerate(names)
    )
    graph = LayerGraph("measured", "test", layers, signals(layers, "measured"))
    shown = planned(graph, View(fold=True, only="conversions", hops=2))
    assert [box.layers for box in shown.boxes] == [(0,), (1, 2), (3, 4), (5, 6), (7,)]
    assert [box.kind for box in shown.boxes] == ["layer", "chain", "hidden", "chain", "layer"]
    assert runs_forwards(shown)


@needs_engines
def test_conversions_alone_are_all_there_with_what_is_next_to_them() -> None:
    graph = resnet18()
    shown = planned(graph, View(only="conversions", hops=0))
    conversions = {index for index, layer in enumerate(graph.layers) if marks(layer, graph.origin)}
    drawn = {index for box in shown.boxes if box.kind != "hidden" for index in box.layers}
    assert len(conversions) == 10
    assert conversions <= drawn
    hidden = [index for box in shown.boxes if box.kind == "hidden" for index in box.layers]
    assert sorted([*drawn, *hidden]) == list(range(len(graph.layers)))


@needs_engines
@pytest.mark.parametrize(
    "name", ["Conv_22", "layer1.0.conv1.weight + QuantizeLinear_20 + Conv_22", "*Conv_2[2]", "v_22"]
)
def test_around_takes_a_layer_a_node_a_pattern_or_a_part(name: str) -> None:
    graph = resnet18()
    shown = planned(graph, View(around=name, hops=1))
    drawn = {graph.layers[index].kind for box in shown.boxes if box.kind != "hidden" for index in box.layers}
    assert drawn == {"CaskConvolution", "Reformat QDQ"}
    assert sum(len(box.layers) for box in shown.boxes if box.kind != "hidden") == 3


@needs_engines
@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (
            View(around="layr1.0.conv1.weight"),
            "is no layer, ONNX node, tensor or module; did you mean 'layer1.0.conv1.weight'",
        ),
        (View(around=""), "is no layer, ONNX node, tensor or module; `trtq layers"),
        (View(around="n" * 100_000), "is no layer, ONNX node, tensor or module"),
        (View(only="conversion"), "did you mean 'conversions'"),
        (View(only="everything"), "conversions, double-writes, requantizes, reformats, marked are"),
        (View(only="double-writes"), "a measured engine of TensorRT 8 to 10 cannot tell"),
    ],
)
def test_what_an_engine_does_not_have_is_one_sentence(view: View, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        planned(resnet18(), view)
    assert len(str(caught.value)) < 300
