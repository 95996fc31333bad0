"""The float part of a network in FP16: what is cast, what stays float32 and why, and that nothing is cast twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

from tests.qdq.qdq_graphs import Network, random_feeds, run
from trtq import predict, rules
from trtq.errors import ConfigError
from trtq.qdq import reading
from trtq.qdq.fp16 import Casting, float_tensors, fp16_file, to_fp16

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


class Options(TypedDict, total=False):
    keep: Sequence[str]
    ranges: Mapping[str, float]
    keep_io: bool


def cast(model: onnx.ModelProto, **options: Unpack[Options]) -> tuple[onnx.ModelProto, Casting]:
    """Cast a network and check what must hold for every result."""
    half = ir.from_proto(model)
    casting = to_fp16(half, **options)
    proto = ir.to_proto(half)
    check(proto)
    again = ir.from_proto(proto)
    to_fp16(again, **options)
    assert ir.to_proto(again).SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
    return proto, casting


def check(proto: onnx.ModelProto) -> None:
    """Valid with strict types, value_info that agrees, Q/DQ in float32 with constant scales, no cast for nothing."""
    onnx.checker.check_model(proto, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    inferred = types(onnx.shape_inference.infer_shapes(bare, strict_mode=True))
    assert {name: kind for name, kind in types(proto).items() if inferred.get(name, kind) != kind} == {}
    constants = {one.name: one.data_type for one in proto.graph.initializer}
    writers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            assert constants[node.input[1]] == FLOAT
        if node.op_type == "Cast":
            before = writers.get(node.input[0])
            assert before is None or before.op_type != "Cast" or to_of(before) not in (HALF, FLOAT)
    assert len({(node.input[0], to_of(node)) for node in casts(proto)}) == len(casts(proto))


def types(proto: onnx.ModelProto) -> dict[str, int]:
    values = (*proto.graph.value_info, *proto.graph.output, *proto.graph.input)
    return {one.name: one.type.tensor_type.elem_type for one in values}


def casts(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == "Cast"]


def to_of(node: onnx.NodeProto) -> int:
    return int(next(one.i for one in node.attribute if one.name == "to"))


def parsed(
    body: str, inputs: str = "float[1,4,6,6] x", outputs: str = "float y", constants: str = ""
) -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : 17]> network ({inputs}) => ({outputs}) <{constants}>'
    model = parser.parse_model(f"{header} {{ {body} }}")
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def node(proto: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    first: onnx.NodeProto = next(one for one in proto.graph.node if one.op_type == op_type)
    return first


def reasons(casting: Casting) -> dict[str, str]:
    return {one.node.split()[0]: one.reason for one in casting.kept}


def test_float_network_has_casts_at_its_ends_alone() -> None:
    net = Network()
    x = net.input("x")
    weights = net.constant("w", np.random.default_rng(0).normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32))
    net.constant("b", np.arange(4, dtype=np.float32))
    first = net.op("Relu", net.op("Conv", x, weights, "b", pads=[1] * 4))
    joined = net.concat(first, net.pool(first))
    model = net.proto(net.op("Sigmoid", joined, out="y"))
    half, casting = cast(model)
    assert [(to_of(one), one.input[0], one.output[0]) for one in casts(half)] == [
        (HALF, "x", "x_fp16"),
        (FLOAT, "y_fp16", "y"),
    ]
    assert (casting.kept, casting.half, casting.casts) == ((), 5, 2)
    assert {one.data_type for one in half.graph.initializer if one.name != "zero"} == {HALF}
    assert types(half)["x"] == types(half)["y"] == FLOAT
    feeds = random_feeds(model)
    (plain,), (rounded,) = run(model, feeds), run(half, feeds)
    assert 0 < np.abs(plain - rounded).max() < 5e-3


def test_inputs_and_outputs_may_be_fp16() -> None:
    net = Network()
    half, casting = cast(net.proto(net.op("Relu", net.input("x"), out="y")), keep_io=False)
    assert casting.casts == 0
    assert types(half) == {"x": HALF, "y": HALF}


def test_pairs_compute_in_float32_between_casts() -> None:
    net = Network()
    model = net.proto(net.conv(net.op("Relu", net.conv(net.input("x"), 0.02)), 0.03, out="y"))
    half, casting = cast(model)
    assert casting.half == 3
    written = types(half)
    for one in half.graph.node:
        if one.op_type == "Conv":
            assert written[one.output[0]] == HALF
        if one.op_type == "DequantizeLinear":
            readers = [reader.op_type for reader in half.graph.node if one.output[0] in reader.input]
            assert readers == ["Cast"]
    # The input's quantizer reads the input itself: a cast there would round for nothing.
    assert node(half, "QuantizeLinear").input[0] == "x"
    feeds = random_feeds(model)
    np.testing.assert_allclose(run(half, feeds)[0], run(model, feeds)[0], atol=0.1)


def test_what_lies_between_pairs_alone_stays_exact() -> None:
    """A pool and a Concat of dequantized tensors, quantized again with one scale, lose nothing and cost no cast."""
    net = Network()
    pair = net.pair(net.input("x"), 0.02)
    joined = net.concat(pair, net.pool(pair))
    model = net.proto(net.pair(joined, 0.02))
    half, casting = cast(model)
    assert (casts(half), casting.half) == ([], 0)
    feeds = random_feeds(model)
    np.testing.assert_array_equal(run(half, feeds)[0], run(model, feeds)[0])


@pytest.mark.parametrize(
    ("body", "constants", "operator", "reason"),
    [
        ("y = Mul (x, c)", "float c = {70000.0}", "Mul", "constant 'c' reaches 7e+04"),
        ("a = Sqrt (x) y = Add (a, c)", "float c = {1e-12}", "Add", "constant 'c' is 1e-12, which is 0 in FP16"),
        ("y = Exp (x)", "", "Exp", "Exp grows, and no range of its output is known"),
        ("y = ReduceSumSquare <axes = [2, 3]> (x)", "", "ReduceSumSquare", "ReduceSumSquare grows"),
        ("q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Relu (d)",
         "float s = {1000.0}, int8 z = {0}", "Relu", "reaches 1.28e+05"),
        ("y = Relu (x)", "", "Relu", "it was asked for"),
    ],
)  # fmt: skip
def test_what_stays_float32(body: str, constants: str, operator: str, reason: str) -> None:
    model = parsed(body, constants=constants)
    for index, one in enumerate(model.graph.node):
        one.name = f"node{index}"
    half, casting = cast(model, keep=("node?",) if "asked" in reason else ())
    assert reason in reasons(casting)[operator]
    written = types(onnx.shape_inference.infer_shapes(half))
    assert written[node(half, operator).output[0]] == FLOAT


def test_ranges_keep_what_overflows_and_free_what_fits() -> None:
    model = parsed("a = Exp (x) b = Mul (x, x) c = Add (a, b) y = Relu (c)")
    _, casting = cast(model, ranges={"a": 100.0, "b": 60000.0})
    # b is beyond half of FP16's largest number: what writes it and what reads it stay float32.
    assert set(reasons(casting)) == {"Mul", "Add"}
    assert casting.half == 2


def test_clip_bounds_saturate() -> None:
    half, casting = cast(parsed("y = Clip (x, low, high)", constants="float low = {0.0}, float high = {3.4e38}"))
    assert casting.half == 1
    bounds = {one.name: float(numpy_helper.to_array(one)) for one in half.graph.initializer}
    assert bounds == {"low_fp16": 0.0, "high_fp16": 65504.0}


def test_inputs_that_onnx_defines_for_float32_stay() -> None:
    model = parsed('r = Resize <mode = "nearest"> (x, empty, scales) y = Relu (r)',
                   constants="float[0] empty = {}, float[4] scales = {1.0, 1.0, 2.0, 2.0}")  # fmt: skip
    half, casting = cast(model)
    assert casting.half == 2
    assert {one.name: one.data_type for one in half.graph.initializer} == {"empty": FLOAT, "scales": FLOAT}


def test_shape_arithmetic_stays_exact() -> None:
    """4097 columns have no FP16 number; what is computed from integers is only rounded where a float meets it."""
    body = "s = Shape (x) f = Cast <to = 1> (s) h = Mul (f, c) i = Cast <to = 7> (h) y = Reshape (x, i)"
    half, casting = cast(parsed(body, "float[1,4097] x", constants="float[2] c = {1.0, 1.0}"))
    assert set(reasons(casting)) == {"Mul"}
    feeds = {"x": np.ones((1, 4097), np.float32)}
    assert run(half, feeds)[0].shape == (1, 4097)


def test_subgraphs_read_what_they_captured() -> None:
    then_branch = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["t"])], "then", [], [helper.make_tensor_value_info("t", FLOAT, [1, 4])]
    )
    else_branch = helper.make_graph(
        [helper.make_node("Abs", ["a"], ["e"])], "else", [], [helper.make_tensor_value_info("e", FLOAT, [1, 4])]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("If", ["flag"], ["b"], then_branch=then_branch, else_branch=else_branch),
            helper.make_node("Mul", ["a", "b"], ["y"]),
        ],
        "network",
        [
            helper.make_tensor_value_info("x", FLOAT, [1, 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    half, casting = cast(model)
    assert reasons(casting) == {"If": "it holds a subgraph"}
    feeds = {"x": np.array([[1, 2, -3, 4]], np.float32), "flag": np.array(True)}
    np.testing.assert_allclose(run(half, feeds)[0], [[-1, -4, 0, -16]])


def test_casts_that_are_there_are_used() -> None:
    """A file cast by hand: no chain of casts is left, and equal types are not cast."""
    body = "a = Cast <to = 10> (x) b = Relu (a) c = Cast <to = 1> (b) d = Sigmoid (c) e = Cast <to = 1> (d) y = Neg (e)"
    half, casting = cast(parsed(body))
    assert [one.op_type for one in half.graph.node] == ["Cast", "Relu", "Sigmoid", "Neg", "Cast"]
    assert casting.half == 2


def test_a_glob_that_matches_nothing_is_refused() -> None:
    model = Network()
    proto = model.proto(model.op("Relu", model.input("x"), out="y"))
    with pytest.raises(ConfigError, match="'n_z' matches the name of no node; did you mean 'n_y'"):
        to_fp16(ir.from_proto(proto), keep=["n_z"])


def test_metadata_and_external_weights_stay(tmp_path: Path) -> None:
    net = Network()
    weights = net.constant("w", np.random.default_rng(0).normal(0, 0.3, (4, 4, 9, 9)).astype(np.float32))
    model = net.proto(net.op("Conv", net.input("x"), weights, pads=[4] * 4, out="y"))
    model.doc_string = "as exported"
    helper.set_model_props(model, {"trtq.decode": "{}"})
    source, target = tmp_path / "in.onnx", tmp_path / "out" / "half.onnx"
    onnx.save(model, source, save_as_external_data=True, location="in.bin", size_threshold=0)
    fp16_file(source, target)
    first = target.read_bytes(), target.with_name("half.onnx.data").read_bytes()
    fp16_file(source, target)
    assert (target.read_bytes(), target.with_name("half.onnx.data").read_bytes()) == first
    assert sorted(one.name for one in target.parent.iterdir()) == ["half.onnx", "half.onnx.data"]
    half = onnx.load(target, load_external_data=False)
    assert half.doc_string == "as exported"
    assert {one.key: one.value for one in half.metadata_props} == {"trtq.decode": "{}"}
    stored = next(one for one in half.graph.initializer if one.data_type == HALF)
    assert stored.data_location == TensorProto.EXTERNAL
    feeds = random_feeds(model)
    np.testing.assert_allclose(run(target, feeds)[0], run(source, feeds)[0], atol=5e-3)


def test_the_output_is_not_the_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the input itself"):
        fp16_file(tmp_path / "a.onnx", tmp_path / "a.onnx")


def test_rules_and_prediction_look_through_the_casts() -> None:
    net = Network()
    x = net.input("x")
    joined = net.concat(net.conv(net.op("Relu", net.conv(x, 0.02)), 0.03), net.conv(x, 0.02))
    plain = net.proto(net.conv(joined, 0.05, out="y"))
    half, _ = cast(plain)
    found, through = (rules.lint(ir.from_proto(one)) for one in (plain, half))
    assert [(one.code, one.tensors) for one in through] == [(one.code, one.tensors) for one in found]
    before, after = (predict.predict(ir.from_proto(one)) for one in (plain, half))
    assert after.signals.conversions == before.signals.conversions
    assert [layer.kind for layer in after.layers] == [layer.kind for layer in before.layers]


def test_float_tensors_are_those_that_ranges_are_asked_for() -> None:
    net = Network()
    model = net.model(net.op("Relu", net.pair(net.op("Sigmoid", net.input("x"), out="s"), 0.1), out="y"))
    assert float_tensors(model) == ("s",)


UNARY = ("Relu", "Sigmoid", "Neg", "MaxPool", "Identity")


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Random Q/DQ networks of convolutions, pairs, pools, sums and Concats over one or two inputs."""
    net = Network()
    tensors = [net.input("x"), net.input("z")]
    for _ in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from((*UNARY, "conv", "pair", "float conv", "Add", "Concat")))
        one, other = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        scale = draw(st.sampled_from((0.01, 0.05)))
        if kind == "conv":
            made = net.conv(one, scale)
        elif kind == "pair":
            made = net.pair(one, scale)
        elif kind == "float conv":
            made = net.conv(one)
        elif kind == "MaxPool":
            made = net.pool(one)
        elif kind == "Concat" and net.channels[one] + net.channels[other] <= 16:
            made = net.concat(one, other)
        elif kind == "Add" and net.channels[one] == net.channels[other]:
            made = net.op("Add", one, other)
        else:
            made = net.op(kind if kind in UNARY else "Relu", one)
        tensors.append(made)
    return net.proto()


@settings(max_examples=60, deadline=None)
@given(model=networks(), keep_io=st.booleans())
def test_every_network_stays_valid_and_near(model: onnx.ModelProto, keep_io: bool) -> None:
    half, _ = cast(model, keep_io=keep_io)
    feeds = random_feeds(model)
    fed = {name: value if keep_io else value.astype(np.float16) for name, value in feeds.items()}
    for plain, rounded in zip(run(model, feeds), run(half, fed), strict=True):
        if plain.dtype == np.float32:
            # One step of the widest quantizer in each of the layers is what rounding to FP16 can flip.
            assert np.abs(plain - rounded).max() <= 0.05 * 10 + 0.02 * np.abs(plain).max()


def test_time_is_linear_in_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the nodes, twice the looks at tensors: counted, not timed."""
    looks: list[object] = []
    source = reading.source

    def counted(value: ir.Value | None) -> ir.Value | None:
        looks.append(value)
        return source(value)

    monkeypatch.setattr(reading, "source", counted)
    counts = []
    for length in (100, 200):
        net = Network()
        x = net.input("x")
        for _ in range(length):
            x = net.op("Relu", net.pair(x, 0.1))
        model = net.model()
        looks.clear()
        to_fp16(model)
        counts.append(len(looks))
    assert counts[1] <= 2.1 * counts[0]
