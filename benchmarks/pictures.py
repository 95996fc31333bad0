"""The pictures of the README and of two pages, concepts and graph, drawn as `trtq graph` does from real layer tables.

An ELAN block, quantized naively and by trtq, compiled for SM86 and predicted; a residual block of the published
ResNet18 engines, measured on an A100 (its files lie beside this checkout, in ../shared); a max pool, predicted; the
pyramid pooling of a naive YOLOv7-tiny, compiled.

python -m benchmarks.pictures
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

import onnx
from torch import nn

from benchmarks import networks
from benchmarks.recording import ROOT, trtq
from trtq import files, rules
from trtq.layers import read
from trtq.layers.graph import LayerGraph
from trtq.models.yolov7 import ConvBNAct, ElanTiny
from trtq.report.svg import svg
from trtq.report.view import View

IMAGES = ROOT / "docs" / "images"
ENGINES = ROOT.parent / "shared" / "data" / "engines" / "trt8-resnet18-a100"
TITLES = {"naive": "one scale per convolution input", "ptq": "one scale per group (trtq)"}
RESIDUALS = {"qat": "residual read in float", "qat-residual": "residual quantized"}
POOLS = {"bad": "two scales around a MaxPool", "good": "one scale"}
WHOLE = View(regions=False)
RECIPE = """\
[model]
name = "benchmarks.pictures:elan"

[data]
name = "digit-scenes"
image_size = 64
calibration_images = 8
batch = 8

[engine]
backends = ["rtx"]
"""


def elan() -> nn.Module:
    """Return a stem and one ELAN block: four branches into a Concat, one of them also read by the next branch."""
    blocks = {"stem": ConvBNAct(3, 16, 3, 2, act="leaky_relu"), "elan": ElanTiny(16, 16, 32, act="leaky_relu")}
    return nn.Sequential(OrderedDict(blocks))


def predicted(model: Path) -> LayerGraph:
    """Return the layers that TensorRT's documented rules let expect of an ONNX file."""
    table = model.with_suffix(".layers.json")
    trtq("predict", model, "--output", table)
    return read(table)


def draw_elan(folder: Path) -> None:
    recipe = folder / "elan.toml"
    recipe.write_text(RECIPE)
    for mode, title in TITLES.items():
        checkpoint, model = folder / f"{mode}.safetensors", folder / mode / "model.onnx"
        trtq("quantize", recipe, "--mode", mode, "--output", checkpoint)
        trtq("export", recipe, "--mode", mode, "--from", checkpoint, "--output", model)
        trtq("build", model, "--backend", "rtx", "--output", model.parent)
        draw(f"elan-{mode}", read(model.parent / "layers.json"), title)
        draw(f"elan-{mode}-predicted", predicted(model), title)


def draw_residual() -> None:
    for placement, title in RESIDUALS.items():
        graph = read(ENGINES / f"{placement}.graph.json", ENGINES / f"{placement}.profile.json")
        draw(f"residual-{placement}", graph, title, View(regions=False, around="layer1.1", hops=1))


def draw_pool(folder: Path) -> None:
    for kind, title in POOLS.items():
        model = folder / f"{kind}.onnx"
        onnx.save(onnx.parser.parse_model(getattr(rules.rule("TQ102"), kind)), model)
        draw(f"pool-{kind}", predicted(model), title)


def draw(name: str, graph: LayerGraph, title: str, view: View = WHOLE) -> None:
    files.write_text(IMAGES / f"{name}.svg", svg(graph, title, view=view))


def draw_pyramid(folder: Path) -> None:
    """Draw what is around the pyramid pooling of YOLOv7-tiny, chains folded."""
    graph = read(networks.compiled("yolov7-tiny", "naive", folder) / "layers.json")
    draw("yolov7-tiny-spp", graph, "YOLOv7-tiny, around head.spp", View(fold=True, around="head.spp", hops=1))


def main() -> None:
    draw_residual()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_elan(folder)
        draw_pool(folder)
        draw_pyramid(folder)


if __name__ == "__main__":
    main()
