"""Alignment of layer graphs, on written-out layers and on recorded engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import calls_of
from trtq import layers
from trtq.compare import align, compare
from trtq.compare.align import numbered
from trtq.compare.sides import neighbours
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

RESNET = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines" / "trt8-resnet18-a100"
needs_engines = pytest.mark.skipif(not RESNET.is_dir(), reason="the recorded engine files are not beside this checkout")
MODES = ("fp32", "fp16", "qat", "qat-residual", "qat-residual-qgap")


def graph(rows: list[Layer], sha256: str | None = None) -> LayerGraph:
    return LayerGraph("compiled", "test", tuple(rows), signals(rows, "compiled"), onnx_sha256=sha256)


def layer(name: str, source: str, target: str, *nodes: str, kind: str = "correlation", size: int = 8) -> Layer:
    return Layer(name, kind, (Tensor(source, (1, size), "int8"),), (Tensor(target, (1, size), "float32"),), nodes)


def chain(length: int, prefix: str, *, named: bool) -> LayerGraph:
    return graph(
        [
            layer(
                f"{prefix}{n}",
                f"{prefix}t{n}",
                f"{prefix}t{n + 1}",
                *([f"/m.{n}/Conv"] if named else []),
                size=8 * (1 + n // 40),
            )
            for n in range(length)
        ]
    )


def pairs(a: LayerGraph, b: LayerGraph) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    return {(group.a, group.b) for group in align(a, b).groups}


def test_names_beat_order() -> None:
    a = graph([layer("x", "i", "s", "/p/Conv"), layer("y", "i", "t", "/q/Conv")])
    b = graph([layer("y", "i", "t", "/q/Conv"), layer("x", "i", "s", "/p/Conv")])
    assert pairs(a, b) == {((0,), (1,)), ((1,), (0,))}


def test_a_name_of_another_operator_or_size_is_no_match() -> None:
    a = graph([layer("x", "i", "s", "/p/Conv", kind="maxpool"), layer("y", "s", "t", "/q/Conv", size=4)])
    b = graph([layer("x", "i", "s", "/p/Other", kind="correlation"), layer("y", "s", "t", "/r/Conv", size=16)])
    assert pairs(a, b) == {((0,), ()), ((), (0,)), ((1,), ()), ((), (1,))}
    assert align(a, b).share == 0.0


def test_numbered_names_are_an_identity_within_one_file_only() -> None:
    a = [layer("x", "i", "s", "Conv_1"), layer("y", "s", "t", "Conv_2"), layer("z", "t", "o", "/last/Conv")]
    b = [layer("x", "i", "s", "Conv_2"), layer("y", "s", "t", "Conv_1"), layer("z", "t", "o", "/last/Conv")]
    assert ((0,), (0,)) in pairs(graph(a), graph(b))
    assert ((0,), (1,)) in pairs(graph(a, "same"), graph(b, "same"))
    assert numbered("Conv_84")
    assert numbered("node_conv2d_3")
    assert numbered("Conv84")
    assert not numbered("/stem/conv/Conv_1")
    assert not numbered("layer1.0.conv1.weight_2")


def test_fused_layers_form_one_group() -> None:
    a = graph([layer("x", "i", "s", "/p/Conv"), layer("k", "s", "t", "/p/Conv", "/p/Relu", kind="kgen")])
    b = graph([layer("x", "i", "t", "/p/Conv", "/p/Relu", kind="runtime_fusion")])
    assert pairs(a, b) == {((0, 1), (0,))}
    assert pairs(b, a) == {((0,), (0, 1))}
    (difference,) = compare(a, b, "a", "b").differences
    assert difference.kind == "fusion"
    assert difference.cost_bytes == -(8 + 4 * 8)


def test_topology_goes_on_where_names_end() -> None:
    named = [layer("x", "i", "s", "/p/Conv"), layer("y", "s", "t", "/q/Conv"), layer("z", "i", "u", "/r/Conv")]
    nameless = [layer("x", "i", "s", "/p/Conv"), layer("z", "i", "u"), layer("y", "s", "t")]
    assert pairs(graph(named), graph(nameless)) == {((0,), (0,)), ((1,), (2,)), ((2,), (1,))}


def test_a_rewritten_tensor_name_is_a_new_tensor() -> None:
    rows = [layer("a", "i", "t"), layer("b", "t", "u"), layer("c", "u", "t"), layer("d", "t", "o")]
    producers, consumers = neighbours(rows)
    assert producers == [(), (0,), (1,), (2,)]
    assert consumers == [(1,), (2,), (3,), ()]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_layer_is_in_exactly_one_group(a: list[int], b: list[int]) -> None:
    sides = [
        graph(
            [
                layer(f"{n}", f"t{n}", f"t{n + 1}", *([f"/m.{one}/Conv"] if one else []), size=1 + one % 2)
                for n, one in enumerate(side)
            ]
        )
        for side in (a, b)
    ]
    found = align(*sides)
    assert sorted(index for group in found.groups for index in group.a) == list(range(len(a)))
    assert sorted(index for group in found.groups for index in group.b) == list(range(len(b)))
    assert 0 <= found.share <= 1
    assert align(sides[0], sides[0]).share == 1.0
    assert all(group.a == group.b for group in align(sides[0], sides[0]).groups)


@pytest.mark.parametrize("named", [True, False])
def test_work_grows_in_proportion_to_the_graphs(named: bool) -> None:
    def chains(length: int) -> tuple[LayerGraph, LayerGraph]:
        return chain(length, "a", named=named), chain(length, "b", named=named)

    few, many = chains(200), chains(2000)
    assert calls_of(lambda: compare(*many, "a", "b")) < 12 * calls_of(lambda: compare(*few, "a", "b"))
    comparison = compare(*chains(400), "a", "b")
    assert comparison.aligned_share == 1.0
    assert comparison.differences == ()


@needs_engines
@pytest.mark.parametrize("mode", MODES)
def test_an_engine_aligns_with_itself(mode: str) -> None:
    graph_a = layers.read(RESNET / f"{mode}.graph.json")
    assert all(group.a == group.b for group in align(graph_a, graph_a).groups)
    assert compare(graph_a, graph_a, "a", "b").differences == ()


@needs_engines
@pytest.mark.parametrize(
    ("a", "b"), [("qat", "qat-residual"), ("qat-residual", "qat-residual-qgap"), ("qat", "qat-residual-qgap")]
)
def test_recorded_engines_align_by_weight(a: str, b: str) -> None:
    """Each convolution names its weight, and numbered node names mean other nodes in the other file."""
    graph_a, graph_b = layers.read(RESNET / f"{a}.graph.json"), layers.read(RESNET / f"{b}.graph.json")
    checked = 0
    for group in align(graph_a, graph_b).groups:
        sides = [
            {name for index in indices for name in one.layers[index].onnx_nodes if name.endswith(".weight")}
            for one, indices in ((graph_a, group.a), (graph_b, group.b))
        ]
        assert sides[0] == sides[1]
        checked += len(sides[0])
    assert checked == 21
