from pathlib import Path

import numpy as np
import pytest

from tests.qdq.qdq_graphs import Network, random_feeds, run
from trtq.qdq import groups
from trtq.qdq.groups import JOINTS


def members(network: Network, *outputs: str) -> list[set[str]]:
    return [set(group.tensors) for group in groups(network.model(*outputs))]


@pytest.fixture
def net() -> Network:
    network = Network()
    network.input("x")
    return network


def test_concat_joins_its_output_and_every_input(net: Network) -> None:
    a, b = net.conv("x", out="a"), net.conv("x", out="b")
    net.conv(a, 0.1)
    net.conv(b, 0.2)
    net.conv(net.concat(a, b, out="ab"), 0.3)
    (group,) = groups(net.model())
    assert set(group.tensors) == {"a", "b", "ab"}
    assert group.joined_by == ("Concat ab",)
    assert sorted(group.scales) == pytest.approx([0.1, 0.2, 0.3])
    assert not group.agrees


def test_nested_and_chained_concats_are_one_class_not_pairs_in_order(net: Network) -> None:
    a, b, c, d = (net.conv("x", out=name) for name in "abcd")
    inner = net.concat(a, b, out="ab")
    net.conv(net.concat(inner, c, out="abc"), 0.3)
    net.conv(net.concat(c, d, out="cd"), 0.4)
    for tensor, scale in ((a, 0.1), (d, 0.2)):
        net.conv(tensor, scale)
    assert members(net) == [{"a", "d", "abc", "cd"}]


def test_a_chain_of_pools_into_a_concat_joins_through_each_pool(net: Network) -> None:
    first = net.pool(net.conv("x", out="a"), out="p1")
    second = net.pool(first, out="p2")
    net.conv(net.concat("a", first, second, net.pool(second, out="p3"), out="spp"), 0.1)
    net.conv("a", 0.2)
    net.conv(second, 0.3)
    (group,) = groups(net.model())
    assert set(group.tensors) == {"a", "p2", "spp"}
    assert set(group.joined_by) == {"MaxPool p1", "MaxPool p2", "MaxPool p3", "Concat spp"}


def test_a_pair_that_feeds_two_convolutions_is_one_quantizer(net: Network) -> None:
    shared = net.pair("x", 0.1)
    net.channels[shared] = 4
    net.conv(shared)
    net.conv(shared)
    assert members(net) == []


@pytest.mark.parametrize("joint", ["concat", "pool"])
def test_an_output_read_by_two_convolutions_joins_both_of_their_quantizers(net: Network, joint: str) -> None:
    net.input("z")
    made = net.concat("x", "z", out="made") if joint == "concat" else net.pool("x", out="made")
    net.conv(made, 0.1)
    net.conv(made, 0.2)
    net.conv("x", 0.3)
    (group,) = groups(net.model())
    assert sorted(group.scales) == pytest.approx([0.1, 0.2, 0.3])
    assert group.tensors.count("made") == 1 and len(group.members) == 3


@pytest.mark.parametrize("order", [("conv", "pool", "concat"), ("pool", "concat", "conv"), ("concat", "conv", "pool")])
def test_every_consumer_counts_in_any_order(net: Network, order: tuple[str, ...]) -> None:
    net.input("z")
    for consumer in order:
        if consumer == "conv":
            net.conv("x", 0.1)
        elif consumer == "pool":
            net.conv(net.pool("x", out="pooled"), 0.2)
        else:
            net.conv(net.concat("x", "z", out="joined"), 0.3)
    assert members(net) == [{"x", "pooled", "joined"}]


def test_consumers_that_are_no_quantized_convolution_do_no_harm(net: Network) -> None:
    net.input("z")
    joined = net.concat("x", "z", out="joined")
    quantized = net.pair(joined, 0.1)
    net.op("Add", quantized, quantized)
    net.op("Relu", joined)
    net.conv("x", 0.2)
    assert members(net) == [{"joined", "x"}]


def test_a_concat_that_nothing_quantizes_joins_nothing_but_its_inputs_keep_their_own_groups(net: Network) -> None:
    net.input("z")
    net.op("Sigmoid", net.concat("x", "z"))
    net.conv("x", 0.1)
    net.conv("x", 0.2)
    net.conv("z", 0.3)
    (group,) = groups(net.model())
    assert group.tensors == ("x",) and group.joined_by == () and len(group.members) == 2


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Transpose", (), {"perm": [0, 1, 3, 2]}),
        ("Reshape", (np.array([1, 4, -1]),), {}),
        ("Flatten", (), {}),
        ("Squeeze", (np.array([0]),), {}),
        ("Unsqueeze", (np.array([0]),), {}),
        ("Slice", (np.array([0]), np.array([2]), np.array([1])), {}),
        ("Split", (), {"axis": 1}),
        ("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]),), {}),
        ("Resize", ("", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}),
        ("Expand", (np.array([2, 4, 6, 6]),), {}),
        ("Cast", (), {"to": 1}),
        ("Identity", (), {}),
        ("Relu", (), {}),
        ("Clip", (np.float32(0),), {}),
        ("Clip", (np.float32(0), np.float32(np.inf)), {}),
        ("GlobalMaxPool", (), {}),
    ],
)
def test_operators_that_pass_values_on_join(
    net: Network, op: str, inputs: tuple[object, ...], attributes: dict[str, object]
) -> None:
    names = [one if isinstance(one, str) else net.constant(f"c{i}", np.asarray(one)) for i, one in enumerate(inputs)]
    net.pair(net.op(op, "x", *names, out="y", **attributes), 0.1)
    net.pair("x", 0.2)
    (group,) = groups(net.model())
    assert set(group.tensors) == {"x", "y"}
    assert group.joined_by == (f"{op} y",)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("AveragePool", (), {"kernel_shape": [3, 3]}),
        ("GlobalAveragePool", (), {}),
        ("Resize", ("", np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
        ("Mul", (np.float32(2),), {}),
        ("Sigmoid", (), {}),
        ("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(1)), {}),
        ("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]),), {"mode": "reflect"}),
        ("Cast", (), {"to": 10}),
        ("Clip", (np.float32(0), np.float32(6)), {}),
        ("Clip", (np.float32(-1),), {}),
        ("LeakyRelu", (), {}),
    ],
)
def test_operators_that_change_the_range_are_barriers(
    net: Network, op: str, inputs: tuple[object, ...], attributes: dict[str, object]
) -> None:
    names = [one if isinstance(one, str) else net.constant(f"c{i}", np.asarray(one)) for i, one in enumerate(inputs)]
    made = net.op(op, "x", *names, out="y", **attributes)
    net.pair(made if op != "Cast" else net.op("Cast", made, out="y32", to=1), 0.1)
    net.pair("x", 0.2)
    assert members(net) == []


def test_asymmetric_per_channel_and_useless_scales_are_no_members(net: Network) -> None:
    net.constant("three", np.int8(3))
    net.constant("zero_u8", np.uint8(0))
    net.pair("x", 0.1, "three")
    net.pair("x", 0.2, "zero_u8")
    net.constant("scales", np.full(4, 0.1, np.float32))
    net.constant("zero4", np.zeros(4, np.int8))
    net.op("QuantizeLinear", "x", "scales", "zero4", out="per_channel_q", axis=1)
    net.op("DequantizeLinear", "per_channel_q", "scales", "zero4", axis=1)
    for scale in (0.0, -1.0, np.nan, np.inf):
        net.pair("x", scale)
    net.pair("x", 0.3)
    assert members(net) == []
    net.pair("x", 0.4)
    (group,) = groups(net.model())
    assert group.scales == pytest.approx((0.3, 0.4))


def test_unnamed_and_equally_named_nodes_make_no_difference(net: Network) -> None:
    net.input("z")
    net.conv(net.concat("x", "z"), 0.1)
    net.conv("x", 0.2)
    named = members(net)
    for name in ("", "same"):
        for node in net.nodes:
            node.name = name
        assert members(net) == named


def test_an_operator_joins_only_what_lies_between_two_quantizers(net: Network) -> None:
    """The pool and the Relu have a quantizer on one side alone; without the Concat there would be two groups."""
    left = net.pool(net.conv("x", out="a"), out="pooled")
    right = net.op("Relu", net.conv("x", out="b"), out="active")
    net.conv(left, 0.1)
    net.conv(right, 0.2)
    net.conv(net.concat(left, right, out="joined"), 0.3)
    (group,) = groups(net.model())
    assert set(group.tensors) == {"pooled", "active", "joined"}
    assert group.joined_by == ("Concat joined",) and group.operators == ("Concat",)
    assert group.confidence == "certain"


def test_operators_round_a_ring_are_all_named(net: Network) -> None:
    """Each pool could be cut, and the rest would still join: none of them is an end."""
    pooled = net.pool(net.conv("x", out="a"), out="pooled")
    net.conv("a", 0.1)
    net.conv(net.concat("a", pooled, out="joined"), 0.2)
    (group,) = groups(net.model())
    assert set(group.joined_by) == {"MaxPool pooled", "Concat joined"}


def test_a_group_says_why_with_source_and_confidence(net: Network) -> None:
    net.conv("x", 0.1)
    net.conv("x", 0.2)
    net.conv(net.pool(net.op("Relu", "x", out="y"), out="z"), 0.3)
    (group,) = groups(net.model())
    assert group.confidence == "likely"
    relu, pool, shared = group.why
    assert relu.startswith("Relu: a maximum commutes with rounding") and "likely" in relu
    assert pool.startswith("MaxPool: ") and "certain" in pool and "VanillaSwapWithFollowingQ" in pool
    assert shared.startswith("tensor 'x': it is quantized more than once") and "HorizontalMergeQNodes" in shared


def test_every_row_of_the_table_has_its_reason_and_source() -> None:
    for row in JOINTS.values():
        assert row.why and row.source and row.confidence in ("certain", "likely")


def test_relu_commutes_with_rounding_by_one_scale(net: Network) -> None:
    """What the row claims, bit for bit: the pair after Relu equals Relu after the pair."""
    after = net.pair(net.op("Relu", "x", out="active"), 0.07)
    before = net.op("Relu", net.pair("x", 0.07))
    proto = net.proto(after, before)
    one, other = run(proto, random_feeds(proto, 5))
    assert np.array_equal(one, other)


def test_the_page_lists_the_table_as_it_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "unify.md").read_text()
    for row in JOINTS.values():
        assert f"| {row.op} | {row.why} | {row.confidence} | {row.source} |" in page
