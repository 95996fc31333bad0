"""Layer graphs to draw: one that TensorRT-RTX compiled here, and one made of names that attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.installed import HAS_RTX
from tests.report.hostile_names import HOSTILE_NAMES
from trtq import qdq
from trtq.backends import BuildSpec, rtx
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

CHANNELS, SIZE_PX = 8, 16


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> LayerGraph:
    """Two convolutions and a float Sum read one tensor: two scales and a float copy, written by one kernel."""
    if not HAS_RTX:
        pytest.skip("TensorRT-RTX is not installed")
    folder: Path = tmp_path_factory.mktemp("compiled")
    onnx.save(_fork(), folder / "fork.onnx")
    return _layers(folder / "fork.onnx")


@pytest.fixture(scope="session")
def unified(tmp_path_factory: pytest.TempPathFactory) -> LayerGraph:
    """The same network as `compiled`, with one scale for the tensor that both convolutions read."""
    if not HAS_RTX:
        pytest.skip("TensorRT-RTX is not installed")
    folder: Path = tmp_path_factory.mktemp("unified")
    onnx.save(_fork(), folder / "fork.onnx")
    qdq.unify_file(folder / "fork.onnx", folder / "unified.onnx")
    return _layers(folder / "unified.onnx")


@pytest.fixture(scope="session")
def hostile() -> LayerGraph:
    """A chain in which every name, kind and format is one of HOSTILE_NAMES; every other layer writes twice."""
    layers = []
    previous = Tensor(HOSTILE_NAMES[0] + "input", (1, 3, 8, 8), "float32")
    for number, name in enumerate(HOSTILE_NAMES):
        written = Tensor(f"{name}{number}", (1, 3, 8, 8), "int8", name)
        again = Tensor(f"{name}{number}again", (1, 3, 8, 8), "float32", name)
        outputs = (written, again) if number % 2 else (written,)
        layers.append(Layer(name, name, (previous,), outputs, (name, f"QuantizeLinear{name}"), name))
        previous = written
    return LayerGraph(
        "compiled", HOSTILE_NAMES[0], tuple(layers), signals(layers, "compiled"), HOSTILE_NAMES[:3], notes=HOSTILE_NAMES
    )


def _layers(path: Path) -> LayerGraph:
    engine = rtx.build(BuildSpec(path), path.with_suffix(".plan"))
    assert engine.layers is not None
    return engine.layers


def _fork() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: npt.ArrayLike) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def qdq(tensor: str, scale: float, name: str) -> str:
        parameters = [constant(f"{name}/scale", np.float32(scale)), constant(f"{name}/zero", np.int8(0))]
        nodes.append(helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{name}/q"], f"{name}/QuantizeLinear"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/q", *parameters], [f"{name}/dq"], f"{name}/DQ"))
        return f"{name}/dq"

    def conv(tensor: str, scale: float, channels: int, name: str) -> str:
        weight = constant(f"{name}/weight", rng.normal(size=(CHANNELS, channels, 3, 3)).astype(np.float32))
        inputs = [qdq(tensor, scale, f"{name}/in"), qdq(weight, 0.02, f"{name}/weights")]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}/out"], f"{name}/Conv", pads=[1] * 4))
        nodes.append(helper.make_node("Sigmoid", [f"{name}/out"], [f"{name}/gate"], f"{name}/act/Sigmoid"))
        nodes.append(helper.make_node("Mul", [f"{name}/out", f"{name}/gate"], [f"{name}/silu"], f"{name}/act/Mul"))
        return f"{name}/silu"

    stem = conv("images", 0.1, CHANNELS, "/stem")
    left, right = conv(stem, 0.03, CHANNELS, "/left"), conv(stem, 0.07, CHANNELS, "/right")
    nodes.append(helper.make_node("Sum", [stem, left, right], ["sum"], "/Sum"))
    dims = [1, CHANNELS, SIZE_PX, SIZE_PX]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name in ("images", "sum")]
    graph = helper.make_graph(nodes, "fork", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
