import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.qdq.qdq_graphs import PRODUCERS, Network, random_feeds, run
from trtq import qdq
from trtq.qdq import reading

FILES = [
    "fork-pytorch-quantization-op13",
    "fork-modelopt-torch-op17",
    "fork-modelopt-onnx-max-fp32",
    "fork-ort-tensorrt-style",
]


@pytest.mark.parametrize("name", FILES)
def test_producers_files_compute_the_same_bits_after_cleaning_and_storing_int8(name: str) -> None:
    file = PRODUCERS / f"{name}.onnx"
    if not file.is_file():
        pytest.skip(f"{file.name} is not here: the shared data is absent")
    proto = onnx.load(file)
    feeds = random_feeds(proto)
    before = run(proto, feeds)
    model = ir.from_proto(proto)
    qdq.clean(model)
    cleaned = ir.to_proto(model)
    onnx.checker.check_model(cleaned, full_check=True)
    for one, other in zip(before, run(cleaned, feeds), strict=True):
        assert np.array_equal(one, other)

    weights = sum(reading.is_quantize(node) and not reading.is_activation(node) for node in model.graph)
    assert qdq.store_int8_weights(model) == weights > 0
    stored = ir.to_proto(model)
    onnx.checker.check_model(stored, full_check=True)
    assert stored.ByteSize() < cleaned.ByteSize() * 0.75
    for one, other in zip(before, run(stored, feeds), strict=True):
        assert np.array_equal(one, other)


def test_half_precision_weights_are_stored_as_the_same_codes() -> None:
    """Weights are compared, not outputs: ONNX Runtime's half precision convolutions depend on the graph around."""
    file = PRODUCERS / "fork-modelopt-onnx-max-fp16.onnx"
    if not file.is_file():
        pytest.skip(f"{file.name} is not here: the shared data is absent")
    proto = onnx.load(file)
    model = ir.from_proto(proto)
    weights = [
        reading.name(node.outputs[0])
        for node in model.graph
        if reading.is_dequantize(node) and not reading.is_activation(node)
    ]
    assert qdq.store_int8_weights(model) == len(weights) == 11
    stored = ir.to_proto(model)
    for network in (proto, stored):
        network.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in weights)
    feeds = random_feeds(proto)
    for one, other in zip(run(proto, feeds, weights), run(stored, feeds, weights), strict=True):
        assert one.dtype == np.float16 and np.array_equal(one, other)


def test_clean_leaves_plain_nodes_with_names_of_their_own() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1,2] x) => (float[1,2] y)
    <float stored = {0.5}>
    {
        scale = Constant <value = float {0.5}> ()
        zero = Constant <value = int8 {0}> ()
        copy = Identity (scale)
        x_q = QuantizeLinear (x, copy, zero)
        dead = Sigmoid (x)
        y = DequantizeLinear (x_q, stored, zero)
    }
    """
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = "same"
    model = ir.from_proto(proto)
    qdq.clean(model)
    nodes = list(model.graph)
    assert [node.op_type for node in nodes] == ["QuantizeLinear", "DequantizeLinear"]
    assert len({node.name for node in nodes}) == 2
    assert nodes[0].inputs[1] is nodes[1].inputs[1] and len(model.graph.initializers) == 2


def test_stored_weights_round_half_to_even_saturate_and_take_a_free_name() -> None:
    network = Network()
    network.input("x", channels=1)
    network.constant("w", np.array([0.5, 1.5, -0.5, 2.5, 500, -500], np.float32).reshape(6, 1, 1, 1))
    network.constant("one", np.float32(1))
    network.op("QuantizeLinear", "w", "one", "zero", out="w_int8")
    network.op("Conv", "x", network.op("DequantizeLinear", "w_int8", "one", "zero"))
    network.op("Sigmoid", "x", out="w_int8_1")
    proto = network.proto()
    feeds = random_feeds(proto)
    model = ir.from_proto(proto)
    assert qdq.store_int8_weights(model) == 1
    stored = ir.to_proto(model)
    onnx.checker.check_model(stored, full_check=True)
    (weights,) = [
        value for value in model.graph.initializers.values() if value.dtype == ir.DataType.INT8 and value.shape
    ]
    assert weights.const_value is not None
    assert weights.const_value.numpy().reshape(-1).tolist() == [0, 2, 0, 2, 127, -128]
    for one, other in zip(run(proto, feeds), run(stored, feeds), strict=True):
        assert np.array_equal(one, other)


def test_activations_and_asymmetric_weights_are_not_stored() -> None:
    network = Network()
    network.input("x")
    network.pair("x", 0.1)
    network.constant("w", np.ones(4, np.float32))
    network.constant("three", np.int8(3))
    network.pair("w", 0.1, "three")
    assert qdq.store_int8_weights(network.model()) == 0
