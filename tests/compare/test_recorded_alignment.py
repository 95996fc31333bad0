"""Alignment of recorded engines against a truth that is read off the files by hand: shapes, weights and order."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from trtq import files, layers
from trtq.compare import align, compare
from trtq.layers.graph import LayerGraph

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
pytestmark = pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
RESNET = ENGINES / "trt8-resnet18-a100"
MOBILENET = ENGINES / "trt8-mobilenetv2-titanrtx"
MODES = ("fp16", "qat", "qat-residual-qgap")


def truth(path: Path) -> dict[int, list[Any]]:
    """Return what each row computes: weights' number, and the how-manieth row of that number it is; pools by type.

    Rows of one number of weights depend on each other in these networks, so every engine runs them in one order.
    """
    seen: defaultdict[Any, int] = defaultdict(int)
    found: dict[int, list[Any]] = {}
    for index, row in enumerate(json.loads(path.read_text())["Layers"]):
        parts = [row["Weights"]["Count"]] if "Weights" in row else []
        parts += [row["ConvWeights"]["Count"]] if "ConvWeights" in row else []
        parts += [row[key] for key in ("PoolingType", "PoolingPoolingType") if key in row]
        for part in parts:
            found.setdefault(index, []).append((part, seen[part]))
            seen[part] += 1
    return found


def weights_by_name(path: Path) -> dict[str, Any]:
    """Return the truth of each weight's name: a check on the truth itself."""
    rows, known = json.loads(path.read_text())["Layers"], truth(path)
    return {
        rows[index]["Name"].split(" + ")[0]: parts[0]
        for index, parts in known.items()
        if "weight" in rows[index]["Name"]
    }


def without_names(path: Path, folder: Path) -> Path:
    """Write the file with layers and ONNX nodes called by number, tensors too, and without metadata."""
    document = json.loads(path.read_text())
    tensors: dict[str, str] = {}
    for number, row in enumerate(document["Layers"]):
        row["Name"] = f"layer{number}"
        row.pop("Metadata", None)
        for tensor in (*row["Inputs"], *row["Outputs"]):
            if not tensor["Name"].startswith("l2_cache"):
                tensor["Name"] = tensors.setdefault(tensor["Name"], f"t{len(tensors)}")
    files.write_json(folder / path.name, document)
    return folder / path.name


def check(path_a: Path, path_b: Path, a: LayerGraph, b: LayerGraph) -> int:
    """Check each group that holds a convolution or a pool against the truth; return how many such rows are paired."""
    truths = truth(path_a), truth(path_b)
    paired = 0
    for group in align(a, b).groups:
        here, there = (
            sorted(map(str, (part for index in indices for part in known.get(index, []))))
            for known, indices in zip(truths, (group.a, group.b), strict=True)
        )
        if group.a and group.b:
            assert here == there
            paired += len(here)
        else:
            assert not here
            assert not there
    return paired


def test_the_truth_agrees_with_the_weights_names() -> None:
    assert weights_by_name(RESNET / "qat.graph.json") == weights_by_name(RESNET / "qat-residual-qgap.graph.json")
    assert weights_by_name(MOBILENET / "qat.graph.json") == weights_by_name(MOBILENET / "qat-residual.graph.json")


@pytest.mark.parametrize(("a", "b"), [*itertools.permutations(MODES, 2), ("fp32", "qat"), ("qat", "qat-residual")])
def test_no_false_pair_in_resnet18(a: str, b: str) -> None:
    """21 convolutions and 2 pools, whatever the placement of the quantizers and the order of the branches."""
    paths = RESNET / f"{a}.graph.json", RESNET / f"{b}.graph.json"
    assert check(*paths, *map(layers.read, paths)) == 23


@pytest.mark.parametrize(("a", "b"), [*itertools.combinations(MODES, 2)])
def test_no_false_pair_without_any_name(a: str, b: str, tmp_path: Path) -> None:
    paths = RESNET / f"{a}.graph.json", RESNET / f"{b}.graph.json"
    assert check(*paths, *(layers.read(without_names(path, tmp_path)) for path in paths)) == 23


def test_no_false_pair_in_mobilenet_v2(tmp_path: Path) -> None:
    paths = MOBILENET / "qat.graph.json", MOBILENET / "qat-residual.graph.json"
    assert check(*paths, *map(layers.read, paths)) == 54
    assert check(*paths, *(layers.read(without_names(path, tmp_path)) for path in paths)) == 54


@pytest.mark.parametrize(
    ("one", "other"),
    [("downsample.0", "conv2"), ("layer1.0", "layer1.1"), ("layer2.1.conv1", "layer2.1.conv2"), ("layer3", "layer4")],
)
def test_misleading_names_make_no_false_pair(one: str, other: str, tmp_path: Path) -> None:
    """In B, two layers or blocks have each other's names: same operator, here and there the same weights and output."""
    path = RESNET / "qat-residual-qgap.graph.json"
    document = json.loads(path.read_text())
    for row in document["Layers"]:
        row["Name"] = row["Name"].replace(one, "spare").replace(other, one).replace("spare", other)
    files.write_json(tmp_path / path.name, document)
    a = RESNET / "qat.graph.json"
    assert check(a, path, layers.read(a), layers.read(tmp_path / path.name)) == 23


def test_one_network_across_tensorrt_10_and_11_without_names(tmp_path: Path) -> None:
    old, new = ENGINES / "trt10-mnist-h100" / "trt10.16.1.layers.json", ENGINES / "trt11.0-mnist-b200" / "layers.json"
    found = align(*(layers.read(_without_metadata(path, tmp_path)) for path in (old, new)))
    assert found.share >= 0.9
    assert found.share_a == 1.0
    kinds = {
        (tuple(found.sides[0].layers[i].kind for i in group.a), tuple(found.sides[1].layers[j].kind for j in group.b))
        for group in found.groups
        if group.a and group.b
    }
    # The view in front of the Gemm is a kernel of its own in 11.0.
    assert kinds == {
        (("CaskConvolution",), ("correlation",)),
        (("CaskPooling",), ("maxpool",)),
        (("gemm",), ("kgen", "gemm")),
        (("kgen",), ("kgen",)),
    }


def _without_metadata(path: Path, folder: Path) -> Path:
    document = json.loads(path.read_text())
    for row in document["Layers"]:
        del row["Metadata"]
    files.write_json(folder / f"{path.parent.name}.json", document)
    return folder / f"{path.parent.name}.json"


def test_one_network_across_tensorrt_8_and_10_at_another_batch() -> None:
    """The last Gemm is a generated kernel in 10.1; its ONNX names are none of the other file's."""
    paths = RESNET / "fp16.graph.json", ENGINES / "trt10.1-rtx3060" / "resnet18-fp16.graph.json"
    graphs = [layers.read(path) for path in paths]
    found = align(*graphs)
    convolutions = [index for index, layer in enumerate(graphs[0].layers) if layer.kind == "CaskConvolution"]
    assert len(convolutions) == 21
    truths = [truth(path) for path in paths]
    for group in found.groups:
        here, there = (
            [part for one in side for part in known.get(one, [])]
            for side, known in zip((group.a, group.b), truths, strict=True)
        )
        if here != [(512000, 0)]:
            assert here == there
        else:
            assert [graphs[1].layers[index].kind for index in group.b] == ["kgen"]
    assert found.share > 0.95


def test_another_batch_and_image_size_are_said_and_are_no_difference(tmp_path: Path) -> None:
    path = RESNET / "qat.graph.json"
    document = json.loads(path.read_text())
    for row in document["Layers"]:
        for tensor in (*row["Inputs"], *row["Outputs"]):
            _, channels, *size = tensor["Dimensions"]
            tensor["Dimensions"] = [1, channels, *(side if side == 1 else side * 2 for side in size)]
    files.write_json(tmp_path / path.name, document)
    graphs = layers.read(path), layers.read(tmp_path / path.name)
    assert check(path, path, *graphs) == 23
    comparison = compare(*graphs, "a", "b")
    assert comparison.differences == ()
    assert any("reads 32×3×224×224 and b 1×3×448×448" in note for note in comparison.notes)


@pytest.mark.parametrize("path", [RESNET / "qat-residual-qgap.graph.json", MOBILENET / "qat.graph.json"])
def test_weights_are_counted_as_the_file_does(path: Path) -> None:
    rows = json.loads(path.read_text())["Layers"]
    counts = [row.get("Weights", row.get("ConvWeights", {})).get("Count") for row in rows]
    assert [layer.weight_count for layer in layers.read(path).layers] == counts


def test_weights_of_tensorrt_11_are_its_largest_constants() -> None:
    graph = layers.read(ENGINES / "trt11.0-mnist-b200" / "layers.json")
    counts = {layer.name: layer.weight_count for layer in graph.layers}
    assert counts["node_conv2d_myl0_2"] == 32 * 5 * 5
    assert counts["node_linear_myl0_7"] == 3136 * 1024
