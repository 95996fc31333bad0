"""What holds for any Q/DQ graph: 500 generated ones with nested Concats, chains of pools and shared consumers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.qdq.qdq_graphs import Network, random_feeds, run
from trtq import qdq
from trtq.qdq import changes, reading
from trtq.qdq.policy import Policy

GRAPHS = 500
SCALES = (0.01, 0.013, 0.02, 0.04)
POLICIES: tuple[Policy, ...] = ("max", "max", "output", "weighted")
PAIR = ("QuantizeLinear", "DequantizeLinear")
Draw = st.DrawFn


def _conv(draw: Draw, network: Network, tensor: str) -> str:
    return network.conv(tensor, draw(st.sampled_from(SCALES)))


def _pools(draw: Draw, network: Network, tensor: str) -> str:
    """A chain of pools into a Concat, as in SPP."""
    levels = [_conv(draw, network, tensor)]
    for _ in range(draw(st.integers(1, 3))):
        levels.append(network.pool(levels[-1]))
    if draw(st.booleans()):
        _conv(draw, network, draw(st.sampled_from(levels)))
    return _conv(draw, network, network.concat(*levels))


def _nested(draw: Draw, network: Network, tensor: str) -> str:
    """A Concat of a Concat, whose parts other convolutions may read too."""
    a, b, c = (_conv(draw, network, tensor) for _ in range(3))
    inner = network.concat(a, b)
    if draw(st.booleans()):
        _conv(draw, network, draw(st.sampled_from([a, b, c, inner])))
    return _conv(draw, network, network.concat(inner, c))


def _shared(draw: Draw, network: Network, tensor: str) -> str:
    """One tensor with two quantizers; or one pair that two convolutions read."""
    if draw(st.booleans()):
        return network.concat(_conv(draw, network, tensor), _conv(draw, network, tensor))
    pair = network.pair(tensor, draw(st.sampled_from(SCALES)), form=draw(st.sampled_from(("constant", "identity"))))
    network.channels[pair] = network.channels[tensor]
    return network.op("Add", network.conv(pair), network.conv(pair))


def _passing(draw: Draw, network: Network, tensor: str) -> str:
    """An operator that one scale crosses, or a barrier."""
    kind = draw(st.sampled_from(("Identity", "Relu", "Transpose", "Sigmoid")))
    _conv(draw, network, tensor)
    return network.op(kind, tensor, perm=[0, 1, 3, 2]) if kind == "Transpose" else network.op(kind, tensor)


BLOCKS: tuple[Callable[[Draw, Network, str], str], ...] = (_conv, _pools, _pools, _nested, _nested, _shared, _passing)


@st.composite
def networks(draw: Draw) -> onnx.ModelProto:
    network = Network(opset=draw(st.sampled_from((13, 17, 19))))
    tensors = [network.input("x"), network.input("z")]
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=3, max_size=6)):
        tensors.append(block(draw, network, draw(st.sampled_from(tensors[-3:]))))
    network.conv(tensors[-1], 0.03)
    return network.proto()


@pytest.mark.slow
def test_unified_graphs_keep_their_promises(record_property: Callable[[str, object], None]) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=GRAPHS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(networks(), st.sampled_from(POLICIES))
    def holds(proto: onnx.ModelProto, policy: Policy) -> None:
        model = ir.from_proto(proto)
        before = ir.from_proto(proto)
        seen.update(_features(proto, qdq.groups(model)))
        report = qdq.unify(model, policy)
        seen["edited"] += bool(report.edits)
        seen["edges edited"] += len(report.edits)
        after = ir.to_proto(model)
        _valid_agreeing_and_stable(model, after, report)
        _nothing_else_changed(proto, after, report)
        _bits_stay_before_any_edit_and_each_edit_stays_small(before, proto, after, report)

    holds()
    for name, count in sorted(seen.items()):
        record_property(name, count)
    assert seen["graphs"] >= GRAPHS
    assert seen["two groups, nested or chained, shared"] * 2 >= seen["graphs"], seen
    assert seen["edited"] * 3 >= seen["graphs"], seen


def _features(proto: onnx.ModelProto, groups: tuple[qdq.ScaleGroup, ...]) -> dict[str, int]:
    producers = {name: node.op_type for node in proto.graph.node for name in node.output}
    readers: dict[str, list[str]] = defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node.op_type)
    fed = {kind: [one for one in proto.graph.node if one.op_type == kind] for kind in ("Concat", "MaxPool")}
    nested = any(producers.get(name) == "Concat" for one in fed["Concat"] for name in one.input)
    chained = any(producers.get(one.input[0]) == "MaxPool" for one in fed["MaxPool"])
    constants = {one.name for one in proto.graph.initializer}
    activations = {name for name in readers if producers.get(name) not in (*PAIR, "Constant")} - constants
    shared = any(len(readers[name]) > 1 and "QuantizeLinear" in readers[name] for name in activations)
    return {
        "graphs": 1,
        f"groups: {min(len(groups), 5)}": 1,
        "nested Concat": nested,
        "pool chain": chained,
        "shared consumer": shared,
        "two groups, nested or chained, shared": len(groups) > 1 and (nested or chained) and shared,
    }


def _valid_agreeing_and_stable(model: ir.Model, after: onnx.ModelProto, report: qdq.UnifyReport) -> None:
    onnx.checker.check_model(after, full_check=True)
    assert all(group.agrees for group in qdq.groups(model))
    assert bool(report.edits) == any(not one.group.agrees for one in report.groups)
    for policy in ("max", "output", "weighted"):
        assert not qdq.unify(model, policy).edits
    assert ir.to_proto(model).SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def _nothing_else_changed(proto: onnx.ModelProto, after: onnx.ModelProto, report: qdq.UnifyReport) -> None:
    named = {edit.node: edit for edit in report.edits}
    assert len(named) == len(report.edits)
    old, new = _scales(proto), _scales(after)
    assert {name for name in old if old[name] != new[name]} == set(named)
    assert all((edit.old_scale, edit.new_scale) == (old[name], new[name]) for name, edit in named.items())
    left = {node.output[0] for node in after.graph.node}
    gone = [node for node in proto.graph.node if node.output[0] not in left]
    assert {node.op_type for node in gone} <= {"Constant", "Identity"}
    kept = [node for node in proto.graph.node if node.output[0] in left]
    for one, other in zip(kept, after.graph.node, strict=True):
        assert _plain(one, named) == _plain(other, named)
    for field in ("input", "output"):
        assert list(getattr(proto.graph, field)) == list(getattr(after.graph, field))
    constants = {one.name: one.raw_data for one in proto.graph.initializer}
    for one in after.graph.initializer:
        assert constants.get(one.name, one.raw_data) == one.raw_data


def _plain(node: onnx.NodeProto, named: Collection[str]) -> bytes:
    """A node as bytes, without its scale where an edit names it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if f"{node.op_type} {node.output[0]}" in named:
        del copy.input[1]
    content: bytes = copy.SerializeToString(deterministic=True)
    return content


def _bits_stay_before_any_edit_and_each_edit_stays_small(
    before: ir.Model, proto: onnx.ModelProto, after: onnx.ModelProto, report: qdq.UnifyReport
) -> None:
    """One edit is one quantizer with its DequantizeLinear: alone, so that nothing else moves what it reads."""
    readers = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    changed = [(one, member) for one in report.groups for member in one.group.members if member.scale != one.scale]
    feeds = random_feeds(proto, 0.6)
    outputs = [value.name for value in proto.graph.output]
    names = list(dict.fromkeys([*outputs, *readers.values()]))
    tensors = list(dict.fromkeys(member.tensor for _, member in changed if member.tensor not in feeds))
    old = dict(
        zip([*names, *tensors], run(_exposing(proto, [*names, *tensors]), feeds, [*names, *tensors]), strict=True)
    )
    new = dict(zip(names, run(_exposing(after, names), feeds, names), strict=True))
    moved = _downstream(proto, {member.quantized for _, member in changed})
    for name in names:
        assert name in moved or np.array_equal(old[name], new[name]), name
    for one, member in changed:
        alone = before.clone()
        group = qdq.ScaleGroup((member,), (), "certain")
        assert changes.apply(alone, [(group, one.scale)])
        target = readers[member.quantized]
        (edited,) = run(_exposing(ir.to_proto(alone), [target]), feeds, [target])
        read = feeds[member.tensor] if member.tensor in feeds else old[member.tensor]
        inside = np.abs(read) <= 127 * min(member.scale, one.scale)
        bound = (member.scale + one.scale) / 2 * (1 + 1e-5)
        assert np.abs(edited - old[target])[inside].max(initial=0) <= bound


def _downstream(proto: onnx.ModelProto, starts: set[str]) -> set[str]:
    reached = set(starts)
    for node in proto.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _scales(proto: onnx.ModelProto) -> dict[str, float]:
    """The scale of every activation's Q and DQ, by operator and output."""
    nodes = [node for node in ir.from_proto(proto).graph if node.op_type in PAIR and reading.is_activation(node)]
    return {reading.label(node): reading.scalar_scale(node) or 0.0 for node in nodes}


def _exposing(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    known = {one.name for one in shown.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return shown
