"""Q/DQ networks with the topology of torchvision's ResNet18 and MobileNetV2, narrow and with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Writes an ONNX graph the way pytorch-quantization exports one: float weight, Q, DQ; one Q/DQ pair per reader."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {}
        self.random = np.random.default_rng(0)

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, channels: int, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:0"], name=name, **attributes))
        self.channels[f"{name}:0"] = channels
        return f"{name}:0"

    def input(self, channels: int = 3) -> str:
        self.channels["image"] = channels
        return "image"

    def qdq(self, tensor: str, name: str, scale: float = 0.1) -> str:
        channels = self.channels[tensor]
        places = [
            self.constant(f"{name}.scale", np.float32(scale)),
            self.constant(f"{name}.zero", np.int8(0)),
        ]
        quantized = self.node("QuantizeLinear", [tensor, *places], f"{name}.q", channels)
        return self.node("DequantizeLinear", [quantized, *places], f"{name}.dq", channels)

    def weight(self, shape: tuple[int, ...], name: str) -> str:
        scales = self.constant(f"{name}.weight_scale", np.full(shape[0], 0.01, np.float32))
        zeros = self.constant(f"{name}.weight_zero", np.zeros(shape[0], np.int8))
        weight = self.constant(f"{name}.weight", self.random.normal(size=shape).astype(np.float32))
        quantized = self.node("QuantizeLinear", [weight, scales, zeros], f"{name}.weight_q", 0, axis=0)
        return self.node("DequantizeLinear", [quantized, scales, zeros], f"{name}.weight_dq", 0, axis=0)

    def conv(self, tensor: str, name: str, channels: int, *, kernel: int = 3, stride: int = 1, group: int = 1) -> str:
        weight = self.weight((channels, self.channels[tensor] // group, kernel, kernel), name)
        bias = self.constant(f"{name}.bias", np.zeros(channels, np.float32))
        pad = kernel // 2
        return self.node(
            "Conv", [tensor, weight, bias], name, channels, strides=[stride] * 2, pads=[pad] * 4, group=group
        )

    def quantized_conv(self, tensor: str, name: str, channels: int, scale: float = 0.1, **options: int) -> str:
        return self.conv(self.qdq(tensor, f"{name}.input", scale), name, channels, **options)

    def same(self, kind: str, tensor: str, name: str, **attributes: Any) -> str:
        return self.node(kind, [tensor], name, self.channels[tensor], **attributes)

    def relu(self, tensor: str, name: str) -> str:
        return self.same("Relu", tensor, name)

    def add(self, one: str, other: str, name: str) -> str:
        return self.node("Add", [one, other], name, self.channels[one])

    def max_pool(self, tensor: str, name: str, kernel: int = 3, stride: int = 2) -> str:
        return self.same(
            "MaxPool", tensor, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def concat(self, tensors: list[str], name: str) -> str:
        return self.node("Concat", tensors, name, sum(self.channels[tensor] for tensor in tensors), axis=1)

    def linear(self, tensor: str, name: str, channels: int) -> str:
        pooled = self.same("GlobalAveragePool", tensor, f"{name}.pool")
        flat = self.qdq(self.same("Flatten", pooled, f"{name}.flatten"), f"{name}.input")
        weight = self.weight((channels, self.channels[tensor]), name)
        return self.node("Gemm", [flat, weight], name, channels, transB=1)

    def model(self, *outputs: str, size: int = 32) -> ir.Model:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, self.channels["image"], size, size])
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs]
        graph = helper.make_graph(self.nodes, "network", [image], results, self.initializers)
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def resnet18(residual: bool = False, pool: bool = False) -> ir.Model:
    b = Builder()
    x = b.max_pool(b.relu(b.quantized_conv(b.input(), "conv1", 4, kernel=7, stride=2), "relu"), "maxpool")
    for layer, channels in enumerate((4, 8, 16, 32), start=1):
        for block in range(2):
            stride = 2 if layer > 1 and block == 0 else 1
            x = _basic_block(b, x, f"layer{layer}.{block}", channels, stride=stride, residual=residual)
    if pool:
        x = b.qdq(x, "avgpool.input")
    return b.model(b.linear(x, "fc", 10), size=64)


def _basic_block(b: Builder, x: str, name: str, channels: int, *, stride: int, residual: bool) -> str:
    out = b.relu(b.quantized_conv(x, f"{name}.conv1", channels, stride=stride), f"{name}.relu1")
    out = b.quantized_conv(out, f"{name}.conv2", channels)
    if stride > 1:
        x = b.quantized_conv(x, f"{name}.downsample.0", channels, kernel=1, stride=stride)
    if residual:
        x = b.qdq(x, f"{name}.residual")
    return b.relu(b.add(out, x, f"{name}.add"), f"{name}.relu2")


MOBILENET_BLOCKS = ((1, 2, 1, 1), (6, 3, 2, 2), (6, 4, 3, 2), (6, 6, 4, 2), (6, 8, 3, 1), (6, 10, 3, 2), (6, 12, 1, 1))


def mobilenet_v2(residual: bool = False) -> ir.Model:
    b = Builder()
    x = b.relu(b.quantized_conv(b.input(), "features.0.0", 4, stride=2), "features.0.2")
    index = 1
    for expansion, channels, repeats, stride in MOBILENET_BLOCKS:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            name = f"features.{index}"
            x = _inverted_residual(b, x, name, channels, expansion=expansion, stride=step, residual=residual)
            index += 1
    x = b.relu(b.quantized_conv(x, "features.18.0", 16, kernel=1), "features.18.2")
    return b.model(b.linear(x, "classifier.1", 10), size=64)


def _inverted_residual(
    b: Builder, x: str, name: str, channels: int, *, expansion: int, stride: int, residual: bool
) -> str:
    hidden, out, place = b.channels[x] * expansion, x, 0
    if expansion > 1:
        out = b.relu(b.quantized_conv(out, f"{name}.conv.0.0", hidden, kernel=1), f"{name}.conv.0.2")
        place = 1
    out = b.quantized_conv(out, f"{name}.conv.{place}.0", hidden, stride=stride, group=hidden)
    out = b.quantized_conv(b.relu(out, f"{name}.conv.{place}.2"), f"{name}.conv.{place + 1}", channels, kernel=1)
    if stride > 1 or b.channels[x] != channels:
        return out
    return b.add(b.qdq(x, f"{name}.residual") if residual else x, out, f"{name}.add")
