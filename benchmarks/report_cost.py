"""What pictures and pages cost: `trtq graph` and `trtq report` of full-size YOLOv7, and how they grow with its layers.

YOLOv7 at 640 px, one scale per convolution input, compiled by TensorRT-RTX for SM86. Larger and smaller engines are its
layers again and again, one copy reading what the copy before wrote. Times are of whole commands, interpreter start
included; memory is the peak of the larger of trtq and Graphviz's dot.

    python -m benchmarks.report_cost
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.placement import RECIPE
from benchmarks.recording import ROOT, compile_mode, record, trtq
from trtq.layers.graph import Layer, LayerGraph, Tensor, load_layers
from trtq.layers.signals import signals

NETWORK, IMAGE_SIZE, MODE = "yolov7", 640, "naive"
LAYERS = (100, 400, 1600)
GRAPH_LIMIT_S = 15.0
PAGE_LIMIT_S, PAGE_LIMIT_BYTES, PAGE_LAYERS = 10.0, 8_000_000, 400
# As little training and data as will do: the page shows structure.
PAGE_RECIPE = """\
[model]
name = "{name}"
arguments = {{ num_classes = 10 }}

[data]
name = "digit-scenes"
image_size = {size}
train_images = 2
calibration_images = 2
validation_images = 2
batch = 1

[quantization]
calibrator = "max"
exclude = ["detect.*"]

[finetune]
iterations = 1
batch = 1
warmup_iterations = 0

[engine]
backends = ["rtx"]
"""
VIEWS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "folded": ("--fold",),
    "only marked": ("--only", "marked"),
    "without regions": ("--no-regions",),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "net.toml"
        recipe.write_text(RECIPE.format(name=NETWORK, size=IMAGE_SIZE))
        engine = compile_mode(recipe, MODE, folder)
        result = {"graph": graph_cost(engine / "layers.json", folder), "report": report_cost(folder / "page")}
    record("report_cost", "python -m benchmarks.report_cost", result)


def report_cost(folder: Path) -> dict[str, Any]:
    """Return what `trtq report` costs: of YOLOv7 in four modes, and once more with 400 layers in each quantized one."""
    recipe = folder / f"{NETWORK}.toml"
    folder.mkdir()
    recipe.write_text(PAGE_RECIPE.format(name=NETWORK, size=IMAGE_SIZE))
    trtq("build", recipe, "--mode", "ptq,qat")
    pages = {"YOLOv7": page(recipe)}
    for path in [recipe.with_suffix("") / mode / "layers.json" for mode in ("naive", "ptq", "qat")]:
        stacked(load_layers(path), PAGE_LAYERS, folder).replace(path)
    pages[f"{PAGE_LAYERS} layers"] = page(recipe)
    return {
        "limit_s": PAGE_LIMIT_S,
        "limit_bytes": PAGE_LIMIT_BYTES,
        "within_limits": all(
            one["seconds"] < PAGE_LIMIT_S and one["bytes"] < PAGE_LIMIT_BYTES for one in pages.values()
        ),
        "pages": pages,
    }


def page(recipe: Path) -> dict[str, Any]:
    """Write a recipe's page twice; return the cost of the first time and whether the second wrote the same bytes."""
    target = recipe.with_suffix("") / "report.html"
    cost = run("report", recipe)
    content = target.read_bytes()
    run("report", recipe)
    modes = sorted(path.parent.name for path in recipe.with_suffix("").glob("*/layers.json"))
    layers = {mode: len(load_layers(recipe.with_suffix("") / mode / "layers.json").layers) for mode in modes}
    return {**cost, "bytes": len(content), "same_bytes_again": content == target.read_bytes(), "layers": layers}


def graph_cost(layers: Path, folder: Path) -> dict[str, Any]:
    """Return what `trtq graph` costs: of a whole engine in each view, and of engines of LAYERS layers made from it."""
    graph = load_layers(layers)
    views = {view: drawn(layers, folder, *options) for view, options in VIEWS.items()}
    growth = {str(count): drawn(stacked(graph, count, folder), folder) for count in LAYERS}
    return {
        "layers": len(graph.layers),
        "limit_s": GRAPH_LIMIT_S,
        "within_limit": all(one["seconds"] < GRAPH_LIMIT_S for one in views.values()),
        "views": views,
        "by_layers": growth,
    }


def drawn(layers: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Draw a layer file twice; return the cost of the first time and whether the second wrote the same bytes."""
    pictures = [folder / f"{number}.svg" for number in range(2)]
    costs = [run("graph", layers, "--title", "engine", "-o", picture, *options) for picture in pictures]
    first, second = (picture.read_bytes() for picture in pictures)
    return {**costs[0], "bytes": len(first), "same_bytes_again": first == second}


def run(*arguments: str | Path) -> dict[str, float]:
    """Run `trtq ARGUMENTS`; return wall-clock seconds and peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "trtq", *map(str, arguments)], stdout=subprocess.DEVNULL, cwd=ROOT
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"trtq {arguments[0]} exited with {process.returncode}")
    return {"seconds": round(seconds, 2), "peak_mib": round(usage.ru_maxrss / 1024)}


def stacked(graph: LayerGraph, count: int, folder: Path) -> Path:
    """Write a layer file of `count` layers: copies of `graph`, each reading what the copy before wrote."""
    layers = tuple(islice(copies(graph), count))
    path = folder / f"{count}.layers.json"
    replace(graph, layers=layers, signals=signals(layers, graph.origin)).save(path)
    return path


def copies(graph: LayerGraph) -> Iterator[Layer]:
    """Yield the layers of `graph` again and again, names and modules of each copy its own."""
    entry = graph.layers[0].inputs[0].name
    number, joint = 0, entry
    while True:
        names = {entry: joint}

        def renamed(tensor: Tensor, names: dict[str, str] = names, number: int = number) -> Tensor:
            return replace(tensor, name=names.setdefault(tensor.name, f"{number}/{tensor.name}"))

        for layer in graph.layers:
            outputs = tuple(map(renamed, layer.outputs))
            yield replace(
                layer,
                name=f"{layer.name}#{number}",
                inputs=tuple(map(renamed, layer.inputs)),
                outputs=outputs,
                onnx_nodes=tuple(f"copy{number}.{node}" for node in layer.onnx_nodes),
            )
        number, joint = number + 1, outputs[0].name


if __name__ == "__main__":
    main()
