from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.qdq.qdq_graphs import PRODUCERS, Network, random_feeds, run, scales
from trtq import qdq
from trtq.errors import ConfigError, ModelError, OutputError


@pytest.fixture
def net() -> Network:
    network = Network()
    network.input("x")
    network.input("z")
    return network


def branches(network: Network) -> Network:
    """Three scales that a Concat joins, a scale that it does not, each pair an output of the network."""
    network.pair("x", 0.01)
    network.pair("z", 0.02)
    network.pair(network.concat("x", "z", out="joined"), 0.04)
    network.pair(network.op("Sigmoid", "x", out="gate"), 0.005)
    return network


def test_max_gives_the_widest_scale_to_every_q_and_its_dq(net: Network) -> None:
    model = branches(net).model()
    report = qdq.unify(model)
    by_tensor = scales(model)
    assert len(by_tensor) == 8
    assert {scale for name, scale in by_tensor.items() if not name.startswith("gate")} == {float(np.float32(0.04))}
    assert {scale for name, scale in by_tensor.items() if name.startswith("gate")} == {float(np.float32(0.005))}
    assert [(edit.tensor, edit.node.split()[0]) for edit in report.edits] == [
        ("x", "QuantizeLinear"),
        ("x_0_q", "DequantizeLinear"),
        ("z", "QuantizeLinear"),
        ("z_2_q", "DequantizeLinear"),
    ]
    (group,) = report.groups
    assert [round(group.coarser_bits(member), 3) for member in group.group.members] == [2, 1, 0]
    assert group.predicted_loss_db == pytest.approx(12.04, abs=0.01)


def test_output_takes_the_scale_next_to_the_consumer(net: Network) -> None:
    net.pair("x", 0.04)
    net.pair(net.concat("x", "z"), 0.01)
    model = net.model()
    qdq.unify(model, "output")
    assert set(scales(model).values()) == {float(np.float32(0.01))}


def test_an_unknown_policy_is_refused(net: Network) -> None:
    with pytest.raises(ConfigError, match="policy 'min' is not known"):
        qdq.unify(branches(net).model(), "min")  # type: ignore[arg-type]  # no such policy, on purpose


def test_closure_reaches_scales_that_only_a_chain_of_concats_links(net: Network) -> None:
    """a-b, then c-a, then c-d: aliasing the pairs in order leaves b behind."""
    a, b, c, d = (net.conv("x", out=name) for name in "abcd")
    for tensor, scale in ((a, 0.01), (b, 0.02), (c, 0.03), (d, 0.04)):
        net.pair(tensor, scale)
    for one, other in ((a, b), (c, a), (c, d)):
        net.pair(net.concat(one, other), 0.05)
    model = net.model()
    (group,) = qdq.unify(model).groups
    assert len(group.group.members) == 7
    assert {scale for name, scale in scales(model).items()} == {float(np.float32(0.05))}


def test_only_leaves_the_other_groups_alone(net: Network) -> None:
    net.pair("x", 0.01)
    net.pair("x", 0.02)
    net.pair("z", 0.03)
    net.pair("z", 0.04)
    model = net.model()
    report = qdq.unify(model, only=lambda group: group.tensors == ("z",))
    assert [group.group.tensors for group in report.groups] == [("z",)]
    assert sorted(scales(model).values()) == pytest.approx([0.01, 0.01, 0.02, 0.02, 0.04, 0.04, 0.04, 0.04])


def test_asymmetric_and_per_channel_quantizers_of_a_class_keep_their_scales(net: Network) -> None:
    net.constant("three", np.int8(3))
    net.constant("scales", np.full(4, 0.07, np.float32))
    net.constant("zero4", np.zeros(4, np.int8))
    asymmetric = net.pair("x", 0.06, "three")
    net.op("QuantizeLinear", "x", "scales", "zero4", out="per_channel_q", axis=1)
    net.op("DequantizeLinear", "per_channel_q", "scales", "zero4", out="per_channel_dq", axis=1)
    net.pair("x", 0.01)
    net.pair(net.concat("x", "z"), 0.02)
    model = net.model()
    assert len(qdq.unify(model).edits) == 2
    assert scales(model)[asymmetric] == float(np.float32(0.06))
    per_channel = next(node for node in model.graph if node.outputs[0].name == "per_channel_dq")
    assert per_channel.inputs[1] is not None and per_channel.inputs[1].name == "scales"


def test_a_dq_behind_an_int8_pool_is_edited_with_its_q(net: Network) -> None:
    scale = net.constant("own", np.float32(0.01))
    quantized = net.op("QuantizeLinear", "x", scale, "zero", out="q")
    net.op("DequantizeLinear", net.pool(quantized), scale, "zero", out="dq")
    net.pair("x", 0.02)
    model = net.model()
    qdq.unify(model)
    assert set(scales(model).values()) == {float(np.float32(0.02))}


def test_a_dq_whose_scale_is_computed_is_refused_before_anything_changes(net: Network) -> None:
    net.pair("x", 0.01)
    net.constant("two", np.float32(2))
    net.constant("own", np.float32(0.02))
    doubled = net.op("Mul", "own", "two")
    net.op("DequantizeLinear", net.op("QuantizeLinear", "x", "own", "zero"), doubled, "zero")
    model = net.model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(ModelError, match="computed or per channel"):
        qdq.unify(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_clips_and_each_value_moves_at_most_half_of_both_steps(net: Network) -> None:
    proto = branches(net).proto()
    model = ir.from_proto(proto)
    old = scales(model)
    qdq.unify(model)
    feeds = {name: np.clip(values * 0.6, -1.26, 1.26) for name, values in random_feeds(proto).items()}
    names = [one.name for one in proto.graph.output]
    before, after = run(proto, feeds, names), run(ir.to_proto(model), feeds, names)
    new = scales(model)
    moved = 0
    for name, one, other in zip(names, before, after, strict=True):
        inside = np.abs(one) < 127 * old[name]
        assert np.abs(other - one)[inside].max() <= (old[name] + new[name]) / 2 * (1 + 1e-5)
        moved += int(np.any(one != other))
    assert moved == 2
    assert np.abs(after[0] - feeds["x"]).max() <= new["x_0_dq"] / 2 * (1 + 1e-5)


def test_unify_is_idempotent(net: Network) -> None:
    model = branches(net).model()
    assert qdq.unify(model).edits
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not qdq.unify(model).edits
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


def test_no_unused_constant_is_left_behind_and_no_shared_one_is_lost(net: Network) -> None:
    shared = net.constant("shared", np.float32(0.01))
    net.op("DequantizeLinear", net.op("QuantizeLinear", "x", shared, "zero"), shared, "zero")
    net.op("Add", net.op("Sigmoid", "z"), shared)
    net.pair(net.concat("x", "z"), 0.02)
    net.nodes.insert(0, helper.make_node("Constant", [], ["c"], value_float=0.005))
    net.nodes.insert(1, helper.make_node("Identity", ["c"], ["c_copy"]))
    net.op("DequantizeLinear", net.op("QuantizeLinear", "z", "c_copy", "zero"), "c_copy", "zero")
    model = net.model()
    assert len(qdq.unify(model).edits) == 4
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    read = {name for node in proto.graph.node for name in node.input}
    assert "shared" in {one.name for one in proto.graph.initializer} <= read
    assert not [node for node in proto.graph.node if node.op_type in ("Constant", "Identity")]


def test_new_names_do_not_collide_with_tensors_of_that_name(net: Network) -> None:
    net.op("Sigmoid", "x", out="x_scale_unified")
    model = branches(net).model()
    qdq.unify(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_file_without_edits_comes_back_byte_for_byte(net: Network, tmp_path: Path) -> None:
    net.pair("x", 0.01)
    net.pair(net.concat("x", "z"), 0.01)
    source, target = tmp_path / "in.onnx", tmp_path / "out" / "same.onnx"
    onnx.save(net.proto(), source)
    assert not qdq.unify_file(source, target).edits
    assert target.read_bytes() == source.read_bytes()


def test_the_input_is_overwritten_only_when_asked(net: Network, tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(branches(net).proto(), source)
    before = source.read_bytes()
    for same in (source, tmp_path / "." / "in.onnx"):
        with pytest.raises(ConfigError, match="is the input itself"):
            qdq.unify_file(source, same)
    assert source.read_bytes() == before
    assert qdq.unify_file(source, source, overwrite=True).edits
    assert not qdq.unify_file(source, source, overwrite=True).edits
    assert source.read_bytes() != before


def test_external_data_stays_external_and_moves_with_the_file(net: Network, tmp_path: Path) -> None:
    net.conv("x", 0.01)
    net.conv(net.concat("x", "z"), 0.02)
    proto = net.proto()
    source, target = tmp_path / "in" / "net.onnx", tmp_path / "out" / "net.onnx"
    source.parent.mkdir()
    onnx.save_model(net.proto(), source, save_as_external_data=True, location="net.bin", size_threshold=16)
    assert qdq.unify_file(source, target).edits
    stored = onnx.load(target, load_external_data=False)
    assert all(one.data_location == TensorProto.EXTERNAL for one in stored.graph.initializer if one.name[0] == "w")
    assert (target.parent / "net.bin").read_bytes() == (source.parent / "net.bin").read_bytes()
    unified = ir.from_proto(proto)
    qdq.unify(unified)
    feeds = random_feeds(proto)
    for one, other in zip(run(target, feeds), run(ir.to_proto(unified), feeds), strict=True):
        assert np.array_equal(one, other)


def test_other_weights_in_the_output_folder_are_not_replaced(net: Network, tmp_path: Path) -> None:
    net.conv("x", 0.01)
    net.conv("x", 0.02)
    source, target = tmp_path / "in" / "net.onnx", tmp_path / "out" / "net.onnx"
    for file in (source, target):
        file.parent.mkdir()
    onnx.save_model(net.proto(), source, save_as_external_data=True, location="net.bin", size_threshold=16)
    (target.parent / "net.bin").write_bytes(b"another network's weights")
    with pytest.raises(OutputError, match="holds other weights"):
        qdq.unify_file(source, target)
    assert [file.name for file in target.parent.iterdir()] == ["net.bin"]


def test_metadata_doc_strings_and_value_infos_survive_an_edit(tmp_path: Path) -> None:
    file = PRODUCERS / "fork-pt2e-x86.onnx"
    if not file.is_file():
        pytest.skip(f"{file.name} is not here: the shared data is absent")
    proto = onnx.load(file)
    _make_symmetric(proto)
    proto.doc_string, proto.graph.doc_string, proto.graph.node[0].doc_string = "model", "graph", "node"
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    assert qdq.unify_file(source, target).edits
    after = onnx.load(target)
    onnx.checker.check_model(after, full_check=True)
    kept = {tuple(node.output): _notes(node) for node in proto.graph.node}
    assert sum(len(metadata) for metadata, _ in kept.values()) > 100
    assert {tuple(node.output): _notes(node) for node in after.graph.node} == kept
    assert (after.doc_string, after.graph.doc_string) == ("model", "graph")
    infos = {one.name: one.SerializeToString(deterministic=True) for one in proto.graph.value_info}
    left = {one.name: one.SerializeToString(deterministic=True) for one in after.graph.value_info}
    assert len(infos) > 50 and infos.items() <= left.items()


def _notes(node: onnx.NodeProto) -> tuple[dict[str, str], str]:
    return {one.key: one.value for one in node.metadata_props}, node.doc_string


def _make_symmetric(proto: onnx.ModelProto) -> None:
    """Turn uint8 activation pairs into int8 ones with zero points of zero, whose scales all differ."""
    constants = {one.name: one for one in proto.graph.initializer}
    for place, node in enumerate(proto.graph.node):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in constants:
            continue
        zero, quantized = constants[node.input[2]], (*node.input, *node.output)[3 * (node.op_type[0] == "Q")]
        zero.CopyFrom(numpy_helper.from_array(np.zeros(tuple(zero.dims), np.int8), zero.name))
        if node.op_type == "QuantizeLinear":
            wider = numpy_helper.to_array(constants[node.input[1]]) * np.float32(1 + place / 1000)
            proto.graph.initializer.append(numpy_helper.from_array(wider, f"{quantized}_scale"))
        node.input[1] = f"{quantized}_scale"
    for info in proto.graph.value_info:
        if info.type.tensor_type.elem_type == TensorProto.UINT8:
            info.type.tensor_type.elem_type = TensorProto.INT8
