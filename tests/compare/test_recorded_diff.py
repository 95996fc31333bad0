"""Diffs with known answers: the published ResNet18 and MobileNetV2 engines, profiled."""

from __future__ import annotations

import dataclasses
import itertools
import re
import statistics
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtq import layers
from trtq.compare import Comparison, Difference, compare
from trtq.compare.costs import step_us
from trtq.layers import trtexec_times
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
RESNET = ENGINES / "trt8-resnet18-a100"
needs_engines = pytest.mark.skipif(
    not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
TICK_US = 1.024
KINDS = ("Reformat QDQ", "kgen", "NoOp", "CaskConvolution", "maxpool", "Reformat REFORMAT")
MODES = ("fp16", "qat", "qat-residual", "qat-residual-qgap")


def profiled(folder: str, mode: str) -> LayerGraph:
    return layers.read(ENGINES / folder / f"{mode}.graph.json", ENGINES / folder / f"{mode}.profile.json")


def compared(a: str, b: str, folder: str = "trt8-resnet18-a100") -> Comparison:
    return compare(profiled(folder, a), profiled(folder, b), a, b)


def blocks_named(one: Difference) -> set[str]:
    names = " ".join((*one.layers_a, *one.layers_b, *one.onnx_nodes))
    return set(re.findall(r"layer\d\.\d", names))


def place(comparison: Comparison, region: str) -> Difference:
    (one,) = [one for one in comparison.differences if one.region == region]
    return one


def check_sums(comparison: Comparison, a: LayerGraph, b: LayerGraph) -> None:
    """Each layer is in one difference or in the rest, and the costs add up to the whole."""
    rest = comparison.rest
    for graph, found in (
        (a, [*(one.layers_a for one in comparison.differences), rest.layers_a]),
        (b, [*(one.layers_b for one in comparison.differences), rest.layers_b]),
    ):
        assert Counter(itertools.chain(*found)) == Counter(layer.name for layer in graph.layers)
    for total, unexplained, costs in (
        (comparison.total_us, comparison.unexplained_us, [one.cost_us for one in comparison.differences]),
        (comparison.total_bytes, comparison.unexplained_bytes, [one.cost_bytes for one in comparison.differences]),
    ):
        if total is not None and None not in costs:
            assert sum(cost or 0 for cost in costs) + (unexplained or 0) == pytest.approx(total, abs=1e-2)


@needs_engines
@pytest.mark.parametrize(
    ("folder", "a", "b"),
    [
        ("trt8-resnet18-a100", "qat", "qat-residual-qgap"),
        ("trt8-resnet18-a100", "fp16", "qat"),
        ("trt8-resnet18-a100", "fp32", "fp16"),
        ("trt8-resnet18-a100", "qat-residual", "qat"),
        ("trt8-mobilenetv2-titanrtx", "qat", "qat-residual"),
    ],
)
def test_costs_add_up(folder: str, a: str, b: str) -> None:
    graphs = profiled(folder, a), profiled(folder, b)
    comparison = compare(*graphs, a, b)
    check_sums(comparison, *graphs)
    times = [sum(layer.time_us or 0 for layer in graph.layers) for graph in graphs]
    assert comparison.total_us == pytest.approx(times[1] - times[0], abs=1e-2)
    assert sum(role.cost_us or 0 for role in comparison.roles) == pytest.approx(comparison.total_us, abs=1e-2)


@needs_engines
def test_where_resnet18_gains_from_quantized_residuals() -> None:
    comparison = compared("qat", "qat-residual-qgap")
    assert comparison.total_us == pytest.approx(-422.912)
    # Recounted from the profiles: conv1, pool, its copy and its Q against one fused layer, and so on.
    assert place(comparison, "stem: conv1").cost_us == pytest.approx(71.68 - (201.728 + 95.232 + 36.864 + 27.648))
    assert comparison.differences[0].region == "stem: conv1"
    assert place(comparison, "input").cost_us == pytest.approx(95.232 - 61.44)
    assert place(comparison, "tail: GlobalAveragePool_246").cost_us == pytest.approx(15.36 - (9.216 + 11.264 + 7.168))
    costs = {block: place(comparison, block).cost_us or 0.0 for block in BLOCKS}
    assert all(costs[block] < -10 for block in BLOCKS[:-1])
    assert costs["layer1.0"] == pytest.approx(31.744 + 34.816 - (32.768 + 36.864 + 27.648))
    last = place(comparison, "layer4.1")
    assert not last.is_shown
    assert abs(last.cost_us or 0) <= TICK_US
    assert comparison.resolution_us == pytest.approx(TICK_US)
    assert len(comparison.differences) == len(BLOCKS) + 3
    assert abs(comparison.unexplained_us or 0) <= TICK_US


@needs_engines
@pytest.mark.parametrize(("a", "b"), list(itertools.permutations(MODES, 2)))
def test_no_difference_holds_two_blocks(a: str, b: str) -> None:
    for one in compared(a, b).differences:
        assert len(blocks_named(one)) <= 1


@needs_engines
def test_each_block_names_the_float_residual_and_its_remedy() -> None:
    comparison = compared("qat", "qat-residual-qgap")
    for block in BLOCKS[:-1]:
        one = place(comparison, block)
        (conversion,) = [part for part in one.parts if part.kind == "extra conversion"]
        assert re.search(r"because Add_\d+ adds \S+ in float", conversion.message)
        assert conversion.cause.startswith("inputs.")
        assert one.finding == "TQ201"
        assert one.remedy.startswith("trtq lint MODEL.onnx --select TQ201 --fix --calibration IMAGES -o OUT.onnx")
        assert one.quantizers
    tail = place(comparison, "tail: GlobalAveragePool_246")
    assert tail.finding == "TQ208"
    undone = place(compared("qat-residual", "qat-residual-qgap"), "layer4.1")
    assert undone.finding == "TQ208"


@needs_engines
def test_why_int8_is_slower_than_fp16() -> None:
    comparison = compared("fp16", "qat")
    assert comparison.total_us == pytest.approx(78.848)
    roles = {role.role: role for role in comparison.roles}
    assert (roles["Q/DQ conversions"].layers_a, roles["Q/DQ conversions"].layers_b) == (0, 10)
    assert (roles["convolutions"].layers_a, roles["convolutions"].layers_b) == (21, 21)
    assert (roles["Q/DQ conversions"].cost_us or 0) > 200
    assert (roles["convolutions"].cost_us or 0) < 0
    assert "qat adds 8 residuals in float to what it computes in int8, so those layers write float" in comparison.notes
    stem = comparison.differences[0]
    assert (stem.region, stem.finding) == ("stem: conv1", "TQ201")
    assert (stem.cost_us or 0) > 180
    assert "but writes float" in stem.message


@needs_engines
def test_the_gap_to_the_engines_own_times_is_stated() -> None:
    times = [
        statistics.fmean(trtexec_times.read_times(RESNET / f"{mode}.timing.json").compute_us)
        for mode in ("qat", "qat-residual-qgap")
    ]
    a, b = (profiled("trt8-resnet18-a100", mode) for mode in ("qat", "qat-residual-qgap"))
    comparison = compare(a, b, "a", "b", engine_us=(times[0], times[1]))
    assert comparison.engine_us == pytest.approx(-382.5, abs=0.5)
    assert any(
        "own mean times differ by −382.5 µs: the profiles show −40.4 µs beside" in one for one in comparison.notes
    )


@needs_engines
@pytest.mark.parametrize(
    "path", sorted(ENGINES.glob("*/*graph.json")) + sorted(ENGINES.glob("*/*layers.json")), ids=str
)
def test_a_graph_does_not_differ_from_itself(path: Path) -> None:
    graph = layers.read(path)
    comparison = compare(graph, graph, "a", "b")
    assert comparison.differences == ()
    assert comparison.aligned_share == comparison.share_a == comparison.share_b == 1.0
    assert comparison.total_bytes in (0, None)
    check_sums(comparison, graph, graph)


@needs_engines
def test_a_graph_with_dynamic_shapes_and_one_name_for_all() -> None:
    graph = profiled("trt8-resnet18-a100", "qat")
    rows = [
        dataclasses.replace(
            layer,
            name="kernel",
            inputs=tuple(dataclasses.replace(one, dims=(-1, *one.dims[1:])) for one in layer.inputs),
            outputs=tuple(dataclasses.replace(one, dims=(-1, *one.dims[1:])) for one in layer.outputs),
        )
        for layer in graph.layers
    ]
    dynamic = LayerGraph("measured", "test", tuple(rows), signals(rows, "measured"))
    comparison = compare(dynamic, profiled("trt8-resnet18-a100", "qat-residual-qgap"), "dynamic", "b")
    assert comparison.total_bytes is None
    check_sums(comparison, dynamic, profiled("trt8-resnet18-a100", "qat-residual-qgap"))


def test_layers_of_no_time_and_no_bytes_have_no_cost() -> None:
    def engine(dtype: DType) -> LayerGraph:
        row = Layer("c", "CaskConvolution", (Tensor("x", (-1, 8), dtype),), (Tensor("y", (-1, 8), dtype),))
        return LayerGraph("measured", "test", (row,), signals([row], "measured"))

    comparison = compare(engine("float16"), engine("int8"), "a", "b")
    (one,) = comparison.differences
    assert (one.kind, one.cost_us, one.cost_bytes) == ("int8 instead of float", None, None)
    assert any(note.startswith("no cost") for note in comparison.notes)


def kernel(number: int, layout: str = "", tactic: str = "", time_us: float | None = None) -> Layer:
    read, written = (Tensor(f"t{n}", (1, 8), "int8", layout) for n in (number, number + 1))
    return Layer(f"c{number}", "CaskConvolution", (read,), (written,), (f"/c{number}/Conv",), tactic, time_us)


def engine_of(*rows: Layer) -> LayerGraph:
    return LayerGraph("measured", "test", rows, signals(rows, "measured"))


def test_other_kernels_for_the_same_tensors() -> None:
    def engine(tactic: str, *times_us: float) -> LayerGraph:
        return engine_of(*(kernel(n, tactic=tactic, time_us=time_us) for n, time_us in enumerate(times_us)))

    slow, fast = engine("simple", 20.0, 30.0, 41.0), engine("tiled", 10.0, 30.0, 41.0)
    (one,) = compare(slow, fast, "slow", "fast").differences
    assert (one.kind, one.cost_us, one.layers_a) == ("other tactic", -10.0, ("c0",))
    assert "simple" in one.message
    same = compare(slow, engine("simple", 10.0, 30.0, 41.0), "a", "b")
    assert (same.differences, same.unexplained_us) == ((), -10.0)


def test_formats_of_the_same_tensors() -> None:
    wide, linear = "Thirty-two wide channel vectorized row major Int8 format", "Row major Int8 format"
    (one,) = compare(engine_of(kernel(0, wide)), engine_of(kernel(0, linear)), "a", "b").differences
    assert one.kind == "format change"
    assert "a int8 CHW32 → int8 CHW32, b int8 linear → int8 linear" in one.message
    # A bare type tells no layout.
    assert compare(engine_of(kernel(0, wide)), engine_of(kernel(0, "Int8")), "a", "b").differences == ()


def test_the_step_of_a_profile() -> None:
    assert step_us([n * 1.024 for n in (1, 7, 9, 12, 200)]) is None
    assert step_us([n * 1.024 for n in (1, 7, 8, 9, 12, 200)]) == pytest.approx(1.024)
    assert step_us([4.512, 8.64, 6.048, 6.912]) is None
    assert step_us([]) is None


def names_only(graph: LayerGraph) -> LayerGraph:
    rows = [Layer(layer.name, "unknown", (), (), layer.onnx_nodes) for layer in graph.layers]
    return LayerGraph("measured", "test", tuple(rows), signals(rows, "measured"))


@needs_engines
def test_engines_without_details_align_by_their_names() -> None:
    one = names_only(layers.read(ENGINES / "trt10.1-rtx3060" / "resnet18-fp16.graph.json"))
    assert compare(one, one, "a", "b").differences == ()
    a, b = (names_only(profiled("trt8-resnet18-a100", mode)) for mode in ("qat", "qat-residual-qgap"))
    comparison = compare(a, b, "a", "b")
    assert comparison.aligned_share > 0.7
    assert comparison.total_bytes is None
    check_sums(comparison, a, b)


@needs_engines
@given(st.randoms(use_true_random=False), st.sampled_from(MODES), st.sampled_from(MODES))
@settings(max_examples=25, deadline=None)
def test_whatever_the_layers_each_is_in_one_place(random: Random, a: str, b: str) -> None:
    """Layers lost, repeated, renamed, retyped, out of order, without tensors or times: nothing is dropped."""
    one, other = (mutated(profiled("trt8-resnet18-a100", mode), random) for mode in (a, b))
    check_sums(compare(one, other, "a", "b"), one, other)


def mutated(graph: LayerGraph, random: Random) -> LayerGraph:
    rows = list(graph.layers)
    for _ in range(random.randint(1, 12)):
        index, other = random.randrange(len(rows)), random.choice(graph.layers)
        row = rows[index]
        changed = [
            dataclasses.replace(row, kind=random.choice(KINDS)),
            dataclasses.replace(row, inputs=row.inputs[::-1][: random.randint(0, 2)]),
            dataclasses.replace(row, outputs=()),
            dataclasses.replace(row, outputs=other.outputs),
            dataclasses.replace(row, name=other.name, onnx_nodes=other.onnx_nodes),
            dataclasses.replace(row, time_us=None),
        ]
        rows[index] = random.choice(changed)
        rows.insert(random.randrange(len(rows)), rows.pop(random.randrange(len(rows))))
        if random.random() < 0.3:
            rows.append(other)
    del rows[random.randrange(len(rows))]
    return dataclasses.replace(graph, layers=tuple(rows), signals=signals(rows, graph.origin))
