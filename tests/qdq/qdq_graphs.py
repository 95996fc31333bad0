"""Small Q/DQ networks for the tests of this folder, built node by node, and how to run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

PRODUCERS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "producers"
SIZE = 6  # height and width in pixels of every tensor that keeps its shape


class Network:
    """Collects nodes over tensors of shape (1, channels, SIZE, SIZE); each method returns its output's name."""

    def __init__(self, opset: int = 17) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {"zero": np.asarray(np.int8(0))}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.channels: dict[str, int] = {}
        self.opset = opset

    def input(self, name: str, channels: int = 4) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, SIZE, SIZE]))
        self.channels[name] = channels
        return name

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def op(self, op_type: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=f"n_{out}", **attributes))
        first = self.channels.get(inputs[0], 0)
        self.channels[out] = sum(self.channels[one] for one in inputs) if op_type == "Concat" else first
        return out

    def concat(self, *inputs: str, out: str | None = None) -> str:
        return self.op("Concat", *inputs, out=out, axis=1)

    def pool(self, x: str, out: str | None = None) -> str:
        return self.op("MaxPool", x, out=out, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def pair(self, x: str, scale: float, zero: str = "zero", form: str = "initializer") -> str:
        """A Q/DQ pair on `x`; the Q's output ends in _q, the DQ's in _dq.

        form: "initializer", "constant" or "identity", how the scale is written.
        """
        place = f"scale{len(self.nodes)}"
        if form == "constant":
            self.nodes.append(helper.make_node("Constant", [], [place], value_float=scale))
        else:
            self.constant(place, np.float32(scale))
        if form == "identity":
            place = self.op("Identity", place)
        quantized = self.op("QuantizeLinear", x, place, zero, out=f"{x}_{len(self.nodes)}_q")
        return self.op("DequantizeLinear", quantized, place, zero, out=quantized.removesuffix("q") + "dq")

    def conv(self, x: str, scale: float | None = None, out: str | None = None) -> str:
        """A 1x1 convolution to 4 channels with int8 weights, on `x` quantized with `scale`, or on `x` as it is."""
        data = x if scale is None else self.pair(x, scale)
        tag = len(self.nodes)
        weights = np.random.default_rng(tag).integers(-90, 90, (4, self.channels[x], 1, 1), dtype=np.int8)
        self.constant(f"w{tag}_q", weights)
        self.constant(f"w{tag}_scale", np.full(4, 0.01, np.float32))
        self.constant(f"w{tag}_zero", np.zeros(4, np.int8))
        kernel = self.op("DequantizeLinear", f"w{tag}_q", f"w{tag}_scale", f"w{tag}_zero", out=f"w{tag}", axis=0)
        result = self.op("Conv", data, kernel, out=out)
        self.channels[result] = 4
        return result

    def proto(self, *outputs: str) -> onnx.ModelProto:
        """The checked model; without `outputs`, every tensor that nothing reads is one."""
        read = {name for node in self.nodes for name in node.input}
        outputs = outputs or tuple(name for node in self.nodes for name in node.output if name not in read)
        graph = helper.make_graph(
            self.nodes,
            "network",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        return model

    def model(self, *outputs: str) -> ir.Model:
        return ir.from_proto(self.proto(*outputs))


def run(
    model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray], outputs: Sequence[str] | None = None
) -> list[np.ndarray]:
    """What ONNX Runtime computes, with its graph optimizations off, so that each Q and DQ does what it says."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, feeds))


def random_feeds(model: onnx.ModelProto, spread: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    initial = {one.name for one in model.graph.initializer}
    return {
        one.name: (random.standard_normal([size.dim_value or 1 for size in one.type.tensor_type.shape.dim]) * spread)
        .astype(helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type))
        for one in model.graph.input
        if one.name not in initial
    }  # fmt: skip


def scales(model: ir.Model) -> dict[str, float]:
    """The scalar scale of every Q and DQ, by the tensor that the node writes."""
    return {
        node.outputs[0].name or "": float(tensor.numpy())
        for node in model.graph
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and (scale := node.inputs[1]) is not None
        if (tensor := scale.const_value) is not None and tensor.size == 1
    }
