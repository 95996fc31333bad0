"""A published calibration cache of 197 tensors: text to text, to Q/DQ, through ONNX Runtime, and back to a cache.

The cache is of a YOLOv5s; its ONNX file is not published. The network here has that topology and those tensor names,
and random weights: names and scales are the cache's, accuracy means nothing.

    python -m benchmarks.calibration_cache
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.recording import ROOT, record
from trtq import ptq, qdq
from trtq.backends import BuildSpec, rtx
from trtq.errors import BuildError
from trtq.predict import predict
from trtq.ptq.cache import CalibrationCache, cache_text, read_cache
from trtq.qdq import reading

CACHE = ROOT.parent / "shared" / "data" / "engines" / "calibration" / "yolov5s-qat2ptq-trt8.6.cache"
OPSET = 17
SIZE = 64
CHANNELS = 8
GAIN = 2.0  # a little over what keeps the variance of SiLU, so that every tensor fills some steps of its scale


class _Graph:
    """Collects nodes with random weights; every layer has `CHANNELS` channels."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.width = {"images": 3}

    def node(self, kind: str, inputs: list[str], name: str, width: int = CHANNELS, **attributes: Any) -> str:
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        self.width[output] = width
        return output

    def conv(self, source: str, name: str, kernel: int = 1, stride: int = 1, *, act: bool = True) -> str:
        shape = (CHANNELS, self.width[source], kernel, kernel)
        weight, bias = f"{name}.weight", f"{name}.bias"
        values = self.random.normal(size=shape) * GAIN / np.sqrt(np.prod(shape[1:]))
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), weight))
        self.constants.append(numpy_helper.from_array(np.zeros(CHANNELS, np.float32), bias))
        pads = [(kernel - 1) // 2] * 4
        output = self.node(
            "Conv", [source, weight, bias], f"{name}/conv/Conv" if act else f"{name}/Conv",
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads,
        )  # fmt: skip
        if not act:
            return output
        gate = self.node("Sigmoid", [output], f"{name}/act/Sigmoid")
        return self.node("Mul", [output, gate], f"{name}/act/Mul")

    def block(self, source: str, name: str, depth: int, *, shortcut: bool = True) -> str:
        """Add a cross-stage block of `depth` bottlenecks."""
        inner = self.conv(source, f"{name}/cv1")
        for index in range(depth):
            first = self.conv(inner, f"{name}/m/m.{index}/cv1")
            second = self.conv(first, f"{name}/m/m.{index}/cv2", 3)
            inner = self.node("Add", [inner, second], f"{name}/m/m.{index}/addop/Add") if shortcut else second
        other = self.conv(source, f"{name}/cv2")
        joined = self.node("Concat", [inner, other], f"{name}/concat/Concat", 2 * CHANNELS, axis=1)
        return self.conv(joined, f"{name}/cv3")

    def upsample(self, source: str, name: str) -> str:
        if not any(one.name == "scales" for one in self.constants):
            self.constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
        return self.node("Resize", [source, "", "scales"], f"{name}/Resize", mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip

    def concat(self, sources: list[str], name: str) -> str:
        return self.node("Concat", sources, f"{name}/Concat", sum(self.width[one] for one in sources), axis=1)

    def pooled(self, source: str, name: str) -> str:
        """Add a pyramid of three poolings in a row."""
        levels = [self.conv(source, f"{name}/cv1")]
        for pool in ("m", "m_1", "m_2"):
            levels.append(
                self.node("MaxPool", [levels[-1]], f"{name}/{pool}/MaxPool", kernel_shape=[5, 5], pads=[2] * 4)
            )
        joined = self.node("Concat", levels, f"{name}/concat/Concat", 4 * CHANNELS, axis=1)
        return self.conv(joined, f"{name}/cv2")


def network() -> onnx.ModelProto:
    """Return a float network of YOLOv5s's topology and tensor names, (1, 3, SIZE, SIZE) to three feature maps."""
    graph = _Graph()
    low = graph.conv(graph.conv("images", "/model.0", 7, 2), "/model.1", 3, 2)
    p3 = graph.block(graph.conv(graph.block(low, "/model.2", 1), "/model.3", 3, 2), "/model.4", 2)
    p4 = graph.block(graph.conv(p3, "/model.5", 3, 2), "/model.6", 3)
    p5 = graph.pooled(graph.block(graph.conv(p4, "/model.7", 3, 2), "/model.8", 1), "/model.9")
    top = graph.conv(p5, "/model.10")
    middle = graph.concat([graph.upsample(top, "/model.11"), p4], "/model.12")
    lateral = graph.conv(graph.block(middle, "/model.13", 1, shortcut=False), "/model.14")
    small = graph.block(
        graph.concat([graph.upsample(lateral, "/model.15"), p3], "/model.16"), "/model.17", 1, shortcut=False
    )
    down = graph.concat([graph.conv(small, "/model.18", 3, 2), lateral], "/model.19")
    medium = graph.block(down, "/model.20", 1, shortcut=False)
    down = graph.concat([graph.conv(medium, "/model.21", 3, 2), top], "/model.22")
    large = graph.block(down, "/model.23", 1, shortcut=False)
    heads = [graph.conv(one, f"/model.24/m.{index}", act=False) for index, one in enumerate((small, medium, large))]
    made = helper.make_graph(
        graph.nodes,
        "yolov5s",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(head, TensorProto.FLOAT, None) for head in heads],
        graph.constants,
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    )


def run_scales(path: Path, images: list[np.ndarray]) -> dict[str, float | None]:
    """Return the scale of each quantized tensor as ONNX Runtime computes with it; None where all integers are zero.

    A number and its integer give the scale exactly where the integer is a power of two.
    """
    model = qdq.load(path)
    found: dict[str, float | None] = {}
    quantizers = [node for node in model.graph if reading.is_quantize(node) and reading.is_activation(node)]
    names = {
        reading.name(node.outputs[0]): reading.name(node.outputs[0].consumers()[0].outputs[0]) for node in quantizers
    }
    for values in ptq.observe(model, tuple(dict.fromkeys([*names, *names.values()])), images):
        for node in quantizers:
            quantized, tensor = reading.name(node.outputs[0]), reading.name(node.inputs[0])
            integers, floats = values[quantized], values[names[quantized]]
            exact = np.isin(np.abs(integers.astype(np.int32)), 2 ** np.arange(8))
            scales = np.unique(floats[exact] / integers[exact].astype(np.float32))
            assert scales.size <= 1, f"{tensor}: several scales"
            found[tensor] = float(scales[0]) if scales.size else None
    return found


def main() -> None:
    cache = read_cache(CACHE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(network(), folder / "float.onnx")
        result = converted(cache, folder)
    text = CACHE.read_text()
    record("calibration_cache", "python -m benchmarks.calibration_cache", {
        "tensors": len(cache.scales),
        "text_round_trip_equal": cache_text(cache) == text,
        **result,
    })  # fmt: skip


def converted(cache: CalibrationCache, folder: Path) -> dict[str, Any]:
    made = ptq.cache_to_qdq(folder / "float.onnx", cache, folder / "qdq.onnx")
    images = [np.random.default_rng(1).uniform(size=(1, 3, SIZE, SIZE)).astype(np.float32)]
    run = run_scales(folder / "qdq.onnx", images)
    back = ptq.qdq_to_cache(folder / "qdq.onnx", folder / "stripped.onnx", folder / "back.cache", cache.version)
    again = back.cache.scales
    both = [name for name in cache.scales if name in again]
    return {
        "network": "YOLOv5s topology and tensor names, random weights",
        "keys_matching": len(made.audit.matching),
        "keys_stale": len(made.audit.stale),
        "tensors_without_range": list(made.audit.without_range),
        "quantized_tensors": len(made.scales),
        "int8_layers": made.layers,
        "scales_equal_to_the_cache": sum(scale == cache.scales.get(name) for name, scale in made.scales.items()),
        "tied_to_another_scale": list(made.tied),
        "scales_seen_in_onnx_runtime": sum(scale is not None for scale in run.values()),
        "of_them_equal_bits": sum(scale == made.scales[name] for name, scale in run.items() if scale is not None),
        "predicted_conversions": predict(qdq.load(folder / "qdq.onnx"), "explicit").signals.conversions,
        "tensorrt_rtx": built(folder / "qdq.onnx", folder),
        "back": {
            "keys": len(again),
            "keys_in_both": len(both),
            "equal_bits": sum(again[name] == cache.scales[name] for name in both),
            "differing": {
                name: [cache.scales[name], again[name]] for name in both if again[name] != cache.scales[name]
            },
            "missing": [name for name in cache.scales if name not in again],
            "float_layers": list(back.float_layers),
            "rescaled_weights": len(back.rescaled_weights),
        },
    }


def built(path: Path, folder: Path) -> dict[str, Any]:
    """Return the signals of the file built by TensorRT-RTX, or why it does not build."""
    try:
        engine = rtx.build(BuildSpec(path), folder / rtx.PLAN_NAME)
    except BuildError as error:
        return {"error": str(error)}
    assert engine.layers is not None
    signals = engine.layers.signals
    return {
        "int8_share": signals.int8_share,
        "double_writes": signals.double_writes,
        "requantizes": signals.requantizes,
    }


if __name__ == "__main__":
    main()
