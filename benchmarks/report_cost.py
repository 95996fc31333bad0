"""What pictures and pages cost: `trtq graph` and `trtq report` of full-size YOLOv7, and how they grow with its layers.

YOLOv7 at 640 px, one scale per convolution input, compiled by TensorRT-RTX for SM86. Larger and smaller engines are its
layers again and again, one copy reading what the copy before wrote. Times are of whole commands, interpreter start
included; memory is the peak of the larger of trtq and Graphviz's dot. Beside each, in turn over ROUNDS rounds, a floor:
a script that reads the same layers and lets dot draw a named box for each and an arrow for each tensor, no more.

    python -m benchmarks.report_cost
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import networks
from benchmarks.recording import record, trtq
from benchmarks.unify_cost import measured
from trtq.layers.graph import Layer, LayerGraph, Tensor, load_layers
from trtq.layers.signals import signals

# Layers are what a page costs; the images of its recipe are smaller than the picture's, which changes none of them.
NETWORK, IMAGE_SIZE, MODE = "yolov7", 320, "naive"
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
ROUNDS = 3
FLOOR = """
import json, sys
import graphviz
drawing = graphviz.Digraph(node_attr={"shape": "box"})
for engine, path in enumerate(sys.argv[2:]):
    with open(path) as file:
        layers = json.load(file)["layers"]
    writers = {tensor["name"]: number for number, layer in enumerate(layers) for tensor in layer["outputs"]}
    for number, layer in enumerate(layers):
        drawing.node(f"{engine}.{number}", graphviz.escape(layer["name"]))
        for tensor in layer["inputs"]:
            if tensor["name"] in writers:
                drawing.edge(f"{engine}.{writers[tensor['name']]}", f"{engine}.{number}")
with open(sys.argv[1], "wb") as file:
    file.write(drawing.pipe(format="svg"))
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
        engine = networks.compiled(NETWORK, MODE, folder)
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
        "within_limits": all(one["s"] < PAGE_LIMIT_S and one["bytes"] < PAGE_LIMIT_BYTES for one in pages.values()),
        "pages": pages,
    }


def page(recipe: Path) -> dict[str, Any]:
    """Return the cost of a recipe's page, its layers, and whether each round wrote the same bytes."""
    target = recipe.with_suffix("") / "report.html"
    engines = sorted(recipe.with_suffix("").glob("*/layers.json"))
    layers = {path.parent.name: len(load_layers(path).layers) for path in engines}
    return {**beside_floor(["report", str(recipe)], target, engines), "layers": layers}


def graph_cost(layers: Path, folder: Path) -> dict[str, Any]:
    """Return what `trtq graph` costs: of a whole engine in each view, and of engines of LAYERS layers made from it."""
    graph = load_layers(layers)
    views = {view: drawn(layers, folder, *options) for view, options in VIEWS.items()}
    growth = {str(count): drawn(stacked(graph, count, folder), folder) for count in LAYERS}
    return {
        "layers": len(graph.layers),
        "limit_s": GRAPH_LIMIT_S,
        "within_limit": all(one["s"] < GRAPH_LIMIT_S for one in views.values()),
        "views": views,
        "by_layers": growth,
    }


def drawn(layers: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Return the cost of a layer file's picture, and whether each round wrote the same bytes."""
    picture = folder / "picture.svg"
    picture.unlink(missing_ok=True)
    return beside_floor(["graph", str(layers), "--title", "engine", "-o", str(picture), *options], picture, [layers])


def beside_floor(command: list[str], target: Path, engines: list[Path]) -> dict[str, Any]:
    """Run a trtq command that writes `target`, and the floor for the same engines, in turn."""
    floor = [sys.executable, "-c", FLOOR, str(target.with_name("floor.svg")), *map(str, engines)]
    rounds: list[dict[str, dict[str, float]]] = []
    written: set[bytes] = set()
    for _ in range(ROUNDS):
        target.unlink(missing_ok=True)
        rounds.append({"trtq": measured([sys.executable, "-m", "trtq", *command]), "floor": measured(floor)})
        written.add(target.read_bytes())
    medians = {key: statistics.median(one["trtq"][key] for one in rounds) for key in ("s", "peak_mib")}
    of_floor = statistics.median(one["trtq"]["s"] / one["floor"]["s"] for one in rounds)
    return {
        **medians,
        "of_floor": round(of_floor, 2),
        "bytes": target.stat().st_size,
        "same_bytes_again": len(written) == 1,
        "raw": rounds,
    }


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
