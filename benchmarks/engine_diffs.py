"""Diffs with known answers: published engines of ResNet18, MobileNetV2 and a small CNN, and full-size YOLOv7 on RTX.

Alignment is checked against a truth read off the files: how many weights a row has, and the how-manieth row of that
number it is. Costs are checked against the profiles' sums. YOLOv7 is compiled by TensorRT-RTX for SM86 with one
quantizer a convolution input (naive) and with unified scales; its weights are random, so this shows structure.

    python -m benchmarks.engine_diffs
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import networks
from benchmarks.fuzzed_readers import ENGINES
from benchmarks.recording import record, trtq
from trtq import qdq
from trtq.compare import Comparison, align, compare
from trtq.layers import read, trtexec_times
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

RESNET, MOBILENET = ENGINES / "trt8-resnet18-a100", ENGINES / "trt8-mobilenetv2-titanrtx"
OLD, NEW = ENGINES / "trt10-mnist-h100" / "trt10.16.1.layers.json", ENGINES / "trt11.0-mnist-b200" / "layers.json"
PAIRS = (
    (RESNET, "qat", "qat-residual-qgap"),
    (RESNET, "fp16", "qat"),
    (RESNET, "fp16", "qat-residual-qgap"),
    (RESNET, "qat", "qat-residual"),
    (RESNET, "qat-residual", "qat-residual-qgap"),
    (MOBILENET, "qat", "qat-residual"),
)
LAYERS_WANTED = 400
REPEATS = 7
TOLERANCE_US = 0.01


def main() -> None:
    measured = {f"{folder.name}: {a} to {b}": profiled(folder, a, b) for folder, a, b in PAIRS}
    with tempfile.TemporaryDirectory() as folder:
        yolov7 = unified(Path(folder))
    result = {"profiled": measured, "trt10.16 to trt11.0 without metadata": across_versions(), "yolov7@640": yolov7}
    record("engine_diffs", "python -m benchmarks.engine_diffs", result)


def profiled(folder: Path, a: str, b: str) -> dict[str, Any]:
    """Return the diff of two profiled engines: costs by place, what they add up to, and false pairs."""
    graphs = [read(folder / f"{mode}.graph.json", folder / f"{mode}.profile.json") for mode in (a, b)]
    times = [statistics.fmean(trtexec_times.read_times(folder / f"{mode}.timing.json").compute_us) for mode in (a, b)]
    comparison = compare(graphs[0], graphs[1], a, b, engine_us=(times[0], times[1]))
    sums = [sum_of_profile(folder / f"{mode}.profile.json") for mode in (a, b)]
    explained = sum(one.cost_us or 0.0 for one in comparison.differences)
    total = comparison.total_us or 0.0
    return {
        "total_us": total,
        "total_of_the_files_us": round(sums[1] - sums[0], 3),
        "adds_up": abs(explained + (comparison.unexplained_us or 0.0) - (sums[1] - sums[0])) < TOLERANCE_US,
        "unexplained_us": comparison.unexplained_us,
        "engines_own_us": comparison.engine_us,
        "gap_us": round(total - (comparison.engine_us or 0.0), 3),
        "resolution_us": comparison.resolution_us,
        "aligned_share": {"a": comparison.share_a, "b": comparison.share_b},
        **alignment(folder / f"{a}.graph.json", folder / f"{b}.graph.json", *graphs),
        "most_blocks_in_one_difference": most_blocks(comparison),
        "places": [place(one.to_json()) for one in comparison.differences],
        "roles": [role.to_json() for role in comparison.roles],
        "notes": list(comparison.notes),
    }


def place(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a difference is about, without the layers' names."""
    wanted = (
        "region",
        "class",
        "cost_us",
        "cost_bytes",
        "difference_shown",
        "cause",
        "quantizers",
        "finding",
        "remedy",
    )
    parts = {part["class"]: part["cost_us"] for part in one["parts"]}
    return {**{key: one[key] for key in wanted}, "parts_us": parts}


def sum_of_profile(path: Path) -> float:
    """Return the sum of a profile's medians in microseconds, or means where it has none."""
    rows = [row for row in json.loads(path.read_text()) if "name" in row]
    return 1000 * sum(float(row.get("medianMs", row["averageMs"])) for row in rows)


def alignment(path_a: Path, path_b: Path, a: LayerGraph, b: LayerGraph) -> dict[str, int]:
    """Count the rows with weights and the pools that the alignment pairs rightly, wrongly and not at all."""
    truths = truth(path_a), truth(path_b)
    counts = Counter({"paired": 0, "false_pairs": 0, "unpaired": 0})
    for group in align(a, b).groups:
        here, there = (
            Counter(part for index in indices for part in known.get(index, ()))
            for known, indices in zip(truths, (group.a, group.b), strict=True)
        )
        both = bool(group.a and group.b)
        counts["paired"] += (here & there).total()
        counts["false_pairs" if both else "unpaired"] += max((here - there).total(), (there - here).total())
    return dict(counts)


def truth(path: Path) -> dict[int, list[Any]]:
    """Return what each row computes: its number of weights, or its pooling, and the how-manieth of these it is."""
    seen: defaultdict[Any, int] = defaultdict(int)
    found: dict[int, list[Any]] = {}
    for index, row in enumerate(json.loads(path.read_text())["Layers"]):
        parts = [row[key]["Count"] for key in ("Weights", "ConvWeights") if key in row]
        for part in parts + [row[key] for key in ("PoolingType", "PoolingPoolingType") if key in row]:
            found.setdefault(index, []).append((part, seen[part]))
            seen[part] += 1
    return found


def most_blocks(comparison: Comparison) -> int:
    """Return the most residual blocks that one difference's weights are of; 0 where no name tells."""
    found = [
        {".".join(name.split(".")[:2]) for name in one.onnx_nodes if name.endswith(".weight") and name.count(".") > 2}
        for one in comparison.differences
    ]
    return max(map(len, found), default=0)


def across_versions() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        graphs = [read(without_metadata(path, Path(folder))) for path in (OLD, NEW)]
    found = align(*graphs)
    return {"aligned_share": found.share, "a": found.share_a, "b": found.share_b}


def without_metadata(path: Path, folder: Path) -> Path:
    document = json.loads(path.read_text())
    for row in document["Layers"]:
        del row["Metadata"]
    written = folder / f"{path.parent.name}.json"
    written.write_text(json.dumps(document))
    return written


def unified(folder: Path) -> dict[str, Any]:
    """Return the diff of YOLOv7 with naive scales to the same with unified ones."""
    naive, joined = networks.compiled("yolov7", "naive", folder) / "model.onnx", folder / "unified" / "model.onnx"
    trtq("unify", naive, "--output", joined)
    trtq("build", joined, "--backend", "rtx", "--output", joined.parent)
    paths = [model.parent / "layers.json" for model in (naive, joined)]
    graphs = [read(path) for path in paths]
    comparison = compare(graphs[0], graphs[1], "naive", "unified", onnx_a=naive, onnx_b=joined)
    groups = [set(group.tensors) for group in qdq.groups(qdq.load(naive)) if not group.agrees]
    double = [one for one in comparison.differences if one.kind == "double write"]
    explained = sum(one.cost_bytes or 0 for one in comparison.differences)
    return {
        "layers": [len(graph.layers) for graph in graphs],
        "double_writes_compiled": [graph.signals.double_writes for graph in graphs],
        "double_writes_named": len(double),
        "with_a_scale_group_of_the_file": sum(set(one.group) in groups for one in double),
        "with_a_quantizers_module": sum(bool(one.quantizers) for one in double),
        "with_the_command": sum(f"trtq unify {naive} -o" in one.remedy for one in double),
        "aligned_share": comparison.aligned_share,
        "total_bytes": comparison.total_bytes,
        "adds_up": explained + (comparison.unexplained_bytes or 0) == comparison.total_bytes,
        "places": [{"cause": one.cause, "cost_bytes": one.cost_bytes, "group": one.group} for one in double],
        "seconds": {"as_built": timed(paths, None), "with_the_onnx_files": timed(paths, (naive, joined))},
        "seconds_of_long_engines": timed([lengthened(path, folder) for path in paths], None),
    }


def lengthened(path: Path, folder: Path) -> Path:
    """Write the engine as often in a row as LAYERS_WANTED layers take, each time under other names."""
    graph = read(path)
    times = -(-LAYERS_WANTED // len(graph.layers))
    rows = [renamed(layer, number) for number in range(times) for layer in graph.layers][:LAYERS_WANTED]
    written = folder / f"{path.parent.name}-long.json"
    replace(graph, layers=tuple(rows), signals=signals(rows, graph.origin)).save(written)
    return written


def renamed(layer: Layer, number: int) -> Layer:
    def tensor(one: Tensor) -> Tensor:
        return replace(one, name=f"{number}/{one.name}")

    return replace(
        layer,
        name=f"{layer.name}/{number}",
        inputs=tuple(map(tensor, layer.inputs)),
        outputs=tuple(map(tensor, layer.outputs)),
        onnx_nodes=tuple(f"{number}/{name}" for name in layer.onnx_nodes),
    )


def timed(paths: list[Path], models: tuple[Path, Path] | None) -> dict[str, Any]:
    """Return the median seconds of reading, aligning and diffing, and how many layers there were."""
    seconds = []
    onnx_a, onnx_b = models or (None, None)
    for _ in range(REPEATS):
        started = time.perf_counter()
        graphs = [read(path) for path in paths]
        compare(graphs[0], graphs[1], "a", "b", onnx_a=onnx_a, onnx_b=onnx_b)
        seconds.append(time.perf_counter() - started)
    return {"layers": [len(graph.layers) for graph in graphs], "median_s": round(statistics.median(seconds), 3)}


if __name__ == "__main__":
    main()
