"""A small Q/DQ network: two branches of one stem, one of them chained on, concatenated before a last convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 64
SIZE = 80
TENSOR_ELEMENTS = CHANNELS * SIZE * SIZE


class Network:
    """Collects nodes and initializers; every convolution's input and weight is quantized."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def add(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def quantized(self, tensor: str, name: str, scale: float) -> str:
        inputs = [
            tensor,
            self.constant(f"{name}.scale", np.array(scale, np.float32)),
            self.constant(f"{name}.zero", np.array(0, np.int8)),
        ]
        inputs[0] = self.add("QuantizeLinear", f"{name}/QuantizeLinear", inputs)
        return self.add("DequantizeLinear", f"{name}/DequantizeLinear", inputs)

    def conv(self, tensor: str, name: str, channels: int, kernel: int, scale: float) -> str:
        """Quantize, convolve, SiLU."""
        tensor = self.quantized(tensor, f"/{name}/conv/input_quantizer", scale)
        weight = self.random.integers(-127, 128, (CHANNELS, channels, kernel, kernel), dtype=np.int8)
        scales = self.random.uniform(0.001, 0.002, CHANNELS).astype(np.float32)
        dequantized = self.add(
            "DequantizeLinear",
            f"/{name}/conv/weight_quantizer/DequantizeLinear",
            [
                self.constant(f"{name}.weight", weight),
                self.constant(f"{name}.weight.scale", scales),
                self.constant(f"{name}.weight.zero", np.zeros(CHANNELS, np.int8)),
            ],
            axis=0,
        )
        bias = self.constant(f"{name}.bias", self.random.uniform(-1, 1, CHANNELS).astype(np.float32))
        tensor = self.add("Conv", f"/{name}/conv/Conv", [tensor, dequantized, bias], pads=[kernel // 2] * 4)
        return self.add("Mul", f"/{name}/act/Mul", [tensor, self.add("Sigmoid", f"/{name}/act/Sigmoid", [tensor])])

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        dims = [1, CHANNELS, SIZE, SIZE]
        graph = helper.make_graph(
            self.nodes,
            "branches",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, dims) for output in outputs],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branches(*, unified: bool, consumers: bool = False) -> onnx.ModelProto:
    """Scales agree across the Concat where `unified`; with `consumers`, two branches feed a convolution more each."""
    b3_scale, b1_scale, side_scale, concat_scale = (0.05,) * 4 if unified else (0.06, 0.07, 0.08, 0.05)
    network = Network()
    stem = network.conv("images", "stem", CHANNELS, 3, 0.03)
    b1 = network.conv(stem, "b1", CHANNELS, 1, 0.04)
    b2 = network.conv(stem, "b2", CHANNELS, 1, 0.04)
    b3 = network.conv(b2, "b3", CHANNELS, 3, b3_scale)
    concat = network.add("Concat", "/Concat", [b1, b2, b3], axis=1)
    outputs = [network.conv(concat, "after", 3 * CHANNELS, 1, concat_scale)]
    if consumers:
        outputs += [
            network.conv(b1, "side1", CHANNELS, 3, b1_scale),
            network.conv(b3, "side3", CHANNELS, 3, side_scale),
        ]
    return network.model(outputs)


def residual(*, quantized: bool) -> onnx.ModelProto:
    """A residual block whose identity is float, or `quantized` with the scale of the convolution beside it."""
    network = Network()
    stem = network.conv("images", "stem", CHANNELS, 3, 0.03)
    deep = network.conv(stem, "deep", CHANNELS, 3, 0.04)
    identity = network.quantized(stem, "/add/input_quantizer", 0.04) if quantized else stem
    joined = network.add("Add", "/add/Add", [deep, identity])
    return network.model([network.conv(joined, "after", CHANNELS, 1, 0.05)])


def plain() -> onnx.ModelProto:
    """The residual block without any quantizer."""
    quantized = residual(quantized=False)
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    alias: dict[str, str] = {}
    nodes = []
    for node in quantized.graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            nodes.append(node)
            continue
        alias[node.output[0]] = node.input[0]
        if node.input[0] in weights:
            floats = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32) / 1000
            weights[node.input[0]].CopyFrom(numpy_helper.from_array(floats, node.input[0]))
    del quantized.graph.node[:]
    quantized.graph.node.extend(nodes)
    return quantized
