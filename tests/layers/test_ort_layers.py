"""What ONNX Runtime runs: its own optimized network and its own profile, joined."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtq import layers
from trtq.errors import ModelError

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return a small Q/DQ network, what ONNX Runtime made of it, and the profile of four runs."""
    folder = tmp_path_factory.mktemp("ort")
    source, optimized = folder / "source.onnx", folder / "optimized.onnx"
    onnx.save(network(), source)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    for _ in range(4):
        session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    return source, optimized, Path(session.end_profiling())


def network() -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = {"w": weight, "s": np.float32(0.05), "z": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dequantize"),
        helper.make_node("Conv", ["xd", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["y"], "pool"),
    ]
    shapes: dict[str, list[str | int]] = {"x": ["batch", 3, 8, 8], "y": ["batch", 4, 1, 1]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_times_by_node_name(run: tuple[Path, Path, Path]) -> None:
    _, optimized, profile = run
    times: defaultdict[str, list[float]] = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event["cat"] == "Node":
            times[event["name"]].append(event["dur"])
    graph = layers.read(optimized, profile)
    assert [layer.name for layer in graph.layers] == [node.name for node in onnx.load(optimized).graph.node]
    assert {layer.name + "_kernel_time": layer.time_us for layer in graph.layers} == {
        name: median(durations) for name, durations in times.items()
    }
    assert graph.origin == "measured"
    assert graph.signals.time_us == pytest.approx(sum(map(median, times.values())))


def test_the_profile_tells_shapes_that_the_network_leaves_open(run: tuple[Path, Path, Path]) -> None:
    _, optimized, profile = run
    assert layers.read(optimized).signals.traffic_bytes is None
    graph = layers.read(optimized, profile)
    quantize = next(layer for layer in graph.layers if layer.kind == "QuantizeLinear")
    # ONNX Runtime turns int8 activations into uint8 on processors where that is faster.
    assert quantize.outputs[0].dims == (1, 3, 8, 8)
    assert quantize.outputs[0].dtype in ("int8", "uint8")


def test_surviving_quantizers_are_conversions(run: tuple[Path, Path, Path]) -> None:
    _, optimized, _ = run
    graph = layers.read(optimized)
    assert (graph.origin, graph.signals.conversions) == ("compiled", 2)
    assert graph.signals.double_writes is None
    constants = {"w", "s", "z"}
    assert not [tensor for layer in graph.layers for tensor in layer.inputs if tensor.name in constants]


def test_a_network_that_onnx_runtime_did_not_write(run: tuple[Path, Path, Path]) -> None:
    source, _, profile = run
    with pytest.raises(ModelError, match="has not optimized"):
        layers.read(source)
    with pytest.raises(ModelError, match="give the layer file"):
        layers.read(profile)


def test_a_profile_of_another_network(run: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, optimized, _ = run
    other = tmp_path / "other.json"
    event: dict[str, Any] = {"cat": "Node", "name": "else_kernel_time", "dur": 3, "args": {}}
    for content, words in (([event], "names none"), ([{**event, "dur": "3"}], "duration"), ([3], "not a profile")):
        other.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=words):
            layers.read(optimized, other)


def test_damaged_networks(run: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, optimized, _ = run
    path = tmp_path / "cut.onnx"
    for content in (b"", b"hello", optimized.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            layers.read(path)
