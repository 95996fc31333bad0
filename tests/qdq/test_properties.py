"""What holds for any Q/DQ graph: generated ones with Concats, pools and shared consumers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdq_graphs import Network, random_feeds, run, scales

from trtq import qdq

SCALES = (0.01, 0.013, 0.02, 0.04)
STEPS = ("conv", "conv", "pool", "concat", "concat", "identity", "sigmoid", "quantize", "shared")


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    network = Network()
    tensors = [network.input("x"), network.input("z")]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=9)):
        chosen = draw(st.sampled_from(tensors))
        scale = draw(st.sampled_from(SCALES))
        if step == "conv":
            tensors.append(network.conv(chosen, scale))
        elif step == "pool":
            tensors.append(network.pool(chosen))
        elif step == "concat":
            others = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=2))
            tensors.append(network.concat(chosen, *others))
        elif step == "identity":
            tensors.append(network.op("Identity", chosen))
        elif step == "sigmoid":
            tensors.append(network.op("Sigmoid", chosen))
        elif step == "quantize":
            network.pair(chosen, scale)
        else:
            pair = network.pair(chosen, scale)
            network.channels[pair] = network.channels[chosen]
            tensors += [network.conv(pair), network.conv(pair)]
    network.conv(tensors[-1], 0.03)
    return network.proto()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_unified_graphs_are_valid_agree_and_stay_as_they_are(proto: onnx.ModelProto) -> None:
    model = ir.from_proto(proto)
    disagreeing = [group for group in qdq.groups(model) if not group.agrees]
    old = scales(model)
    report = qdq.unify(model)
    unified = ir.to_proto(model)

    onnx.checker.check_model(unified, full_check=True)
    assert all(group.agrees for group in qdq.groups(model))
    assert bool(report.edits) == bool(disagreeing)
    assert not qdq.unify(model).edits
    assert ir.to_proto(model).SerializeToString(deterministic=True) == unified.SerializeToString(deterministic=True)

    new = scales(model)
    touched = {edit.node.split(" ", 1)[1] for edit in report.edits}
    assert {name for name in old if old[name] != new[name]} == touched
    assert all(new[name] > old[name] for name in touched)
    assert _without_scales(unified) == _without_scales(proto)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_equal_scales_mean_equal_bits_and_others_move_within_their_steps(proto: onnx.ModelProto) -> None:
    """At the pairs on the network's inputs, whose values do not depend on any other edit."""
    model = ir.from_proto(proto)
    old = scales(model)
    edits = qdq.unify(model).edits
    new = scales(model)
    feeds = {name: np.clip(values, -1.2, 1.2) for name, values in random_feeds(proto).items()}
    names = [
        node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear" and node.input[0][0] in "xz"
    ]
    names += [one.name for one in proto.graph.output]
    before, after = (run(_exposing(one, names), feeds, names) for one in (proto, ir.to_proto(model)))
    for name, one, other in zip(names, before, after, strict=True):
        if not edits:
            assert np.array_equal(one, other)
        elif name[0] in "xz":
            inside = np.abs(one) < 127 * old[name]
            assert np.abs(other - one)[inside].max(initial=0) <= (old[name] + new[name]) / 2 * (1 + 1e-5)


def _without_scales(proto: onnx.ModelProto) -> list[tuple[str, tuple[str, ...], tuple[str, ...], str]]:
    pairs = ("QuantizeLinear", "DequantizeLinear")
    return [
        (
            node.op_type,
            tuple(name for place, name in enumerate(node.input) if node.op_type not in pairs or place != 1),
            tuple(node.output),
            str(node.attribute),
        )
        for node in proto.graph.node
    ]


def _exposing(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    known = {one.name for one in shown.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return shown
