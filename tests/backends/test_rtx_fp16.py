"""What TensorRT-RTX makes of networks cast to FP16: int8 stays int8, and one weight scale writes FP16."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import present
from trtq.backends import BuildSpec, rtx
from trtq.layers import kinds
from trtq.layers.graph import LayerGraph
from trtq.pipeline.checking import lint_file
from trtq.qdq import fp16_file

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")

PRODUCERS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "producers"
CHANNELS, SIZE = 64, 40


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three quantized 3x3 convolutions with ReLU, per-channel int8 weights, activations and biases in float32."""
    random = np.random.default_rng(0)
    constants = {"s": np.float32(0.02), "z": np.int8(0), "zs": np.zeros(CHANNELS, np.int8)}
    nodes, x = [], "x"
    for index in range(3):
        constants[f"w{index}"] = random.integers(-90, 90, (CHANNELS, CHANNELS, 3, 3), dtype=np.int8)
        constants[f"ws{index}"] = random.uniform(1e-4, 1e-3, CHANNELS).astype(np.float32)
        constants[f"b{index}"] = random.normal(0, 0.1, CHANNELS).astype(np.float32)
        nodes += [
            helper.make_node("QuantizeLinear", [x, "s", "z"], [f"q{index}"], name=f"q{index}"),
            helper.make_node("DequantizeLinear", [f"q{index}", "s", "z"], [f"d{index}"], name=f"d{index}"),
            helper.make_node(
                "DequantizeLinear", [f"w{index}", f"ws{index}", "zs"], [f"wd{index}"], f"wd{index}", axis=0
            ),
            helper.make_node(
                "Conv", [f"d{index}", f"wd{index}", f"b{index}"], [f"c{index}"], f"c{index}", pads=[1] * 4
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"r{index}"),
        ]
        x = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path_factory.mktemp("chain") / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def compiled(path: Path, folder: Path) -> LayerGraph:
    graph = rtx.build(BuildSpec(path), folder / f"{path.stem}.plan").layers
    assert graph is not None
    return graph


def convolutions(graph: LayerGraph) -> Counter[tuple[bool | None, str]]:
    """How many convolutions run in int8, and what they write."""
    return Counter((kinds.runs_int8(one), one.outputs[0].dtype) for one in graph.layers if kinds.is_compute(one))


def test_int8_stays_int8_and_one_weight_scale_writes_fp16(chain: Path, tmp_path: Path) -> None:
    plain = compiled(chain, tmp_path)
    fp16_file(chain, tmp_path / "half.onnx")
    half = compiled(tmp_path / "half.onnx", tmp_path)
    casting = fp16_file(chain, tmp_path / "one.onnx", per_tensor_weights=True)
    one = compiled(tmp_path / "one.onnx", tmp_path)
    assert casting.weights is not None
    assert casting.weights.changed == ("c0", "c1", "c2")
    assert convolutions(plain) == convolutions(half) == {(True, "float32"): 3}
    assert convolutions(one) == {(True, "float16"): 3}
    assert [graph.signals.layers for graph in (plain, half, one)] == [7, 7, 7]
    plain_bytes, half_bytes, one_bytes = (graph.signals.traffic_bytes for graph in (plain, half, one))
    assert plain_bytes is not None
    assert half_bytes is not None
    assert one_bytes is not None
    assert one_bytes < 0.75 * plain_bytes
    assert half_bytes <= plain_bytes


def test_float_network_runs_in_fp16(chain: Path, tmp_path: Path) -> None:
    model = onnx.load(chain)
    floats = {f"wd{index}": f"float{index}" for index in range(3)}
    random = np.random.default_rng(1)
    for name in floats.values():
        weights = random.normal(0, 0.05, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    kept = [node for node in model.graph.node if node.op_type in ("Conv", "Relu")]
    for index, node in enumerate(one for one in kept if one.op_type == "Conv"):
        node.input[0] = "x" if index == 0 else f"r{index - 1}"
        node.input[1] = floats[node.input[1]]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, tmp_path / "float.onnx")
    fp16_file(tmp_path / "float.onnx", tmp_path / "half.onnx")
    before, after = (compiled(tmp_path / f"{name}.onnx", tmp_path) for name in ("float", "half"))
    assert set(convolutions(after)) == {(False, "float16")}
    assert after.signals.layers == before.signals.layers
    assert after.signals.traffic_bytes == pytest.approx(0.5 * present(before.signals.traffic_bytes), rel=0.35)


@pytest.mark.parametrize("name", ["fork-modelopt-torch-op17", "fork-ort-default", "fork-pytorch-quantization-op13"])
def test_other_producers_files_build_with_the_same_layers(name: str, tmp_path: Path) -> None:
    source = PRODUCERS / f"{name}.onnx"
    if not PRODUCERS.is_dir():
        pytest.skip("the producers' files are not here")
    lint_file(source, tmp_path / "mended.onnx")
    fp16_file(tmp_path / "mended.onnx", tmp_path / "half.onnx")
    before, after = (compiled(tmp_path / f"{one}.onnx", tmp_path) for one in ("mended", "half"))
    assert after.signals.layers == before.signals.layers
    assert after.signals.int8_share == before.signals.int8_share == 1
    assert present(after.signals.traffic_bytes) <= present(before.signals.traffic_bytes)
