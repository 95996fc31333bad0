"""A small network with what detectors and classifiers are made of, float or with TensorRT's kind of Q/DQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from trtq import qdq
from trtq.backends.ort_extremes import extremes
from trtq.qdq.clean import quantize

SIZE = 16
SHAPES = {"w1": (16, 3, 3, 3), "w2": (16, 16, 1, 1), "w3": (16, 32, 1, 1), "w4": (16, 1, 3, 3), "w5": (8, 16, 1, 1)}
# The file quantizes these tensors; the last convolution stays float.
QUANTIZED = ("x", "r1", "l2", "cat", "add")
QUANTIZED_CONVOLUTIONS = 4
# As after training: no weight reaches 127, so that nobody finds its scale again by looking at the weights.
LARGEST_INTEGER = 106

Array = npt.NDArray[Any]


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0, 1, (count, 3, SIZE, SIZE)).astype(np.float32)


def save_batches(folder: Path, *batches: Array) -> Path:
    folder.mkdir(exist_ok=True)
    for number, batch in enumerate(batches or (images(4), images(4, seed=1))):
        np.save(folder / f"{number}.npy", batch)
    return folder


def float_network(path: Path, lowest: float = 0.0, **changed: Array) -> Path:
    """Write the float network; changed: other values for its constants w1 to w5 and b1 to b5."""
    random = np.random.default_rng(0)
    constants = {name: random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape) for name, shape in SHAPES.items()}
    constants.update({f"b{name[1]}": random.normal(0, 0.2, shape[0]) for name, shape in SHAPES.items()})
    constants.update(changed, low=np.asarray(lowest), high=np.asarray(6.0))
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"]),
        node("LeakyRelu", ["c2"], ["l2"], alpha=0.1),
        node("MaxPool", ["l2"], ["p2"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Concat", ["l2", "p2"], ["cat"], axis=1),
        node("Conv", ["cat", "w3", "b3"], ["c3"]),
        node("Sigmoid", ["c3"], ["g3"]),
        node("Mul", ["c3", "g3"], ["s3"]),
        node("Add", ["s3", "r1"], ["add"]),
        node("Conv", ["add", "w4", "b4"], ["c4"], pads=[1] * 4, group=16),
        node("Clip", ["c4", "low", "high"], ["k4"]),
        node("Conv", ["k4", "w5", "b5"], ["y"]),
    ]
    onnx.save(_model(nodes, {name: np.asarray(one, np.float32) for name, one in constants.items()}), path)
    return path


def quantized_network(path: Path, folder: Path, **changed: Any) -> Path:
    """Write the network with symmetric Q/DQ on QUANTIZED and int8 weights for each channel; scales by calibration."""
    source = qdq.load(float_network(path, **changed))
    ir.passes.common.ShapeInferencePass()(source)
    found = extremes(source, save_batches(folder))
    model = onnx.load(path)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    pairs = []
    constants["zero"] = np.asarray(0, np.int8)
    for tensor in QUANTIZED:
        constants[f"{tensor}_scale"] = np.asarray(max(map(abs, found[tensor])) / 127, np.float32)
        pairs += _pair(tensor)
    for name in ("w1", "w2", "w3", "w4"):
        weight = constants.pop(name)
        scales = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(LARGEST_INTEGER)
        constants |= {f"{name}_int8": quantize(weight, scales, 0), f"{name}_scale": scales}
        constants[f"{name}_zero"] = np.zeros(len(scales), np.int8)
        inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        pairs.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], axis=0))
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if f"{name}_int8" in constants or (name in QUANTIZED and node.op_type in ("Conv", "MaxPool", "Concat")):
                node.input[place] = f"{name}_dq"
    quantized = ir.from_proto(_model([*pairs, *model.graph.node], constants))
    quantized.graph.sort()
    onnx.save(ir.to_proto(quantized), path)
    return path


def _pair(tensor: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [tensor, f"{tensor}_scale", "zero"], [f"{tensor}_q"]),
        helper.make_node("DequantizeLinear", [f"{tensor}_q", f"{tensor}_scale", "zero"], [f"{tensor}_dq"]),
    ]


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, SIZE, SIZE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
