"""How good `trtq predict` is: beside published engines, before and after `trtq unify`, and as a graph grows.

The engines' ONNX files are not published, so the networks are exported again: torchvision's, random weights, quantized
at the placements that the engines' names say. Compared are leftover conversions and where they stand, the type of
every tensor that crosses a boundary between layers in the engine or in the prediction, what each convolution reads and
writes, and which operators share a layer. The engines' files are read by `benchmarks/engine_names.py` alone.

    python -m benchmarks.predictor
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from benchmarks.engine_names import Network, read_engine
from benchmarks.engine_scores import scores
from benchmarks.recording import ROOT, record
from benchmarks.resnet_fusion import OPSET, RandomImages, export, export_placement
from trtq import qdq, quant
from trtq.config import load_recipe
from trtq.models.yolov7 import settle_batchnorm, yolov7_tiny
from trtq.predict import Mode, predict, predict_types

ENGINES = ROOT.parent / "shared" / "data" / "engines"
RECIPE = ROOT / "engines" / "yolov7-tiny-digits.toml"
SIZE = 224
YOLO_SIZE = 160
SIZES_OF_GRAPHS = (10_000, 100_000)
NODES_OF_A_BLOCK = 10


@dataclass(frozen=True)
class Case:
    """A published engine: its file, how its network is exported again, and the mode to predict."""

    engine: str
    write: Callable[[Path], None]
    mode: Mode = "explicit"


def main() -> None:
    result: dict[str, Any] = {"quantized": {}, "float": {}}
    for name, case in cases().items():
        if (ENGINES / case.engine).is_file():
            result["quantized" if case.mode == "explicit" else "float"][name] = score(case)
    result["yolov7_tiny"] = unified(RandomImages(3, YOLO_SIZE))
    result["growth"] = growth()
    record("predictor", "python -m benchmarks.predictor", result)


def cases() -> dict[str, Case]:
    """Return every published engine whose network can be exported again, by a name for it."""
    images = RandomImages(3, SIZE)
    found = {
        f"resnet18 {name}": Case(
            f"trt8-resnet18-a100/{name}.graph.json", partial(export_placement, name, images=images)
        )
        for name in ("qat", "qat-residual", "qat-residual-qgap")
    }
    for name in ("qat", "qat-residual"):
        found[f"mobilenet_v2 {name}"] = Case(
            f"trt8-mobilenetv2-titanrtx/{name}.graph.json",
            partial(export_mobilenet_v2, residual=name == "qat-residual", images=images),
        )
    floats: tuple[tuple[str, str, Mode], ...] = (
        ("resnet18", "trt8-resnet18-a100/fp32", "fp32"),
        ("resnet18", "trt8-resnet18-a100/fp16", "fp16"),
        ("resnet18", "trt10.1-rtx3060/resnet18-fp16", "fp16"),
        ("mobilenet_v2", "trt10.1-rtx3060/mobilenet_v2-fp16", "fp16"),
        ("alexnet", "trt10.1-rtx3060/alexnet-fp16", "fp16"),
    )
    for network, engine, mode in floats:
        found[engine] = Case(f"{engine}.graph.json", partial(export_float, network), mode)
    return found


def export_mobilenet_v2(path: Path, *, residual: bool, images: RandomImages) -> None:
    """Write torchvision's MobileNetV2 quantized with or without its residual inputs."""
    export(settled("mobilenet_v2", images), path, images, residual=residual)


def settled(network: str, images: RandomImages) -> nn.Module:
    """Return a torchvision network with random weights, its BatchNorm fit to the images."""
    torch.manual_seed(0)
    return settle_batchnorm(getattr(torchvision.models, network)(weights=None), torch.from_numpy(images.images))


def export_float(network: str, path: Path) -> None:
    """Write a torchvision network as the exporter has it."""
    torch.manual_seed(0)
    module = getattr(torchvision.models, network)(weights=None).eval()
    torch.onnx.export(module, (torch.zeros(1, 3, SIZE, SIZE),), str(path), opset_version=OPSET, dynamo=False)


def score(case: Case) -> dict[str, Any]:
    """Return how the prediction for a network compares with its engine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        case.write(path)
        network, prediction = Network(path), predict_types(qdq.load(path), case.mode)
    found = scores(read_engine(ENGINES / case.engine, network), prediction, network)
    if case.mode != "explicit":
        return {"engine": case.engine, "fused_layers": found["fused_layers"]}
    return {"engine": case.engine, **found, "confidence": dict(Counter(prediction.confidence.values()))}


def unified(images: RandomImages) -> dict[str, int | None]:
    """Return the predicted conversions of YOLOv7-tiny: as placed, after unify, and with one scale in the whole file.

    Quantized as the demo's recipe says; the detection layers stay float in each of the three.
    """
    torch.manual_seed(0)
    model = settle_batchnorm(yolov7_tiny(num_classes=10, width=0.25), torch.from_numpy(images.images))
    spec = load_recipe(RECIPE).quantization
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "naive.onnx"
        example = torch.zeros(1, 3, YOLO_SIZE, YOLO_SIZE)
        quantized = quant.insert(model, spec, example)
        quant.calibrate(quantized, images, spec, batch=len(images))
        quant.export(quantized.module, example, path, opset=OPSET)
        naive, after, equal = (qdq.load(path) for _ in range(3))
        qdq.unify(after)
        set_one_scale(equal, 0.1)
        models = {"naive": naive, "unified": after, "one_scale_in_the_file": equal}
        return {name: predict(model).signals.conversions for name, model in models.items()}


def set_one_scale(model: ir.Model, scale: float) -> None:
    """Give every Q and DQ on an activation the same scale."""
    shared = ir.Value(name="the_scale", const_value=ir.tensor(np.float32(scale), name="the_scale"))
    model.graph.register_initializer(shared)
    for node in model.graph:
        weight = node.inputs[0] is None or node.inputs[0].is_initializer()
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not weight:
            node.replace_input_with(1, shared)


def growth() -> dict[str, Any]:
    """Return the CPU time of a prediction as a chain of residual blocks grows, shape inference included."""
    found: dict[str, Any] = {}
    _seconds(ir.from_proto(chain(1)))
    for nodes in SIZES_OF_GRAPHS:
        model = ir.from_proto(chain(nodes // NODES_OF_A_BLOCK))
        gc.collect()
        found[str(nodes)] = {"nodes": len(model.graph), "seconds": round(_seconds(model), 3)}
    small, large = (found[str(nodes)]["seconds"] for nodes in SIZES_OF_GRAPHS)
    return {"by_nodes": found, "times_as_long_for_ten_times_the_nodes": round(large / small, 1)}


def _seconds(model: ir.Model) -> float:
    started = time.process_time()
    predict(model)
    return time.process_time() - started


def chain(blocks: int) -> onnx.ModelProto:
    """Return residual blocks in a row, quantized: of two convolutions, with a max pool and a Concat in every block."""
    arrays: dict[str, Any] = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w": np.ones((4, 4, 1, 1), np.int8),
        "v": np.ones((4, 8, 1, 1), np.int8),
    }
    nodes = [helper.make_node("DequantizeLinear", [one, "s", "z"], [f"{one}_dq"]) for one in "wv"]
    x = "x"
    for index in range(blocks):
        name = f"b{index}"
        steps = [
            ("QuantizeLinear", [x, "s", "z"], "q"), ("DequantizeLinear", [f"{name}.q", "s", "z"], "dq"),
            ("Conv", [f"{name}.dq", "w_dq"], "one"), ("Relu", [f"{name}.one"], "relu"),
            ("MaxPool", [f"{name}.relu"], "pool"), ("Concat", [f"{name}.relu", f"{name}.pool"], "joined"),
            ("QuantizeLinear", [f"{name}.joined", "s", "z"], "jq"),
            ("DequantizeLinear", [f"{name}.jq", "s", "z"], "jdq"),
            ("Conv", [f"{name}.jdq", "v_dq"], "two"), ("Add", [f"{name}.two", f"{name}.dq"], "sum"),
        ]  # fmt: skip
        for kind, inputs, output in steps:
            extra: dict[str, Any] = (
                {"kernel_shape": [1, 1]} if kind == "MaxPool" else {"axis": 1} if kind == "Concat" else {}
            )
            nodes.append(helper.make_node(kind, inputs, [f"{name}.{output}"], name=f"{name}.{output}", **extra))
        x = f"{name}.sum"
    values = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 4, 8, 8]) for one in ("x", x)]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


if __name__ == "__main__":
    main()
