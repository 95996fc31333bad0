"""The reader of TensorRT's inspector JSON, on files of real engines, with an independent recount."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtq import layers
from trtq.errors import ModelError
from trtq.layers.dtypes import dtype

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
RESNET, MOBILENET = "trt8-resnet18-a100", "trt8-mobilenetv2-titanrtx"
needs_engines = pytest.mark.skipif(
    not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)


def recount(document: dict[str, Any]) -> int:
    return sum(row["LayerType"] == "Reformat" and row.get("Origin") == "QDQ" for row in document["Layers"])


@needs_engines
@pytest.mark.parametrize(
    ("file", "conversions"),
    [
        (f"{RESNET}/qat", 10),
        (f"{RESNET}/qat-residual", 3),
        (f"{RESNET}/qat-residual-qgap", 1),
        (f"{RESNET}/fp16", 0),
        (f"{MOBILENET}/qat", 17),
        (f"{MOBILENET}/qat-residual", 2),
    ],
)
def test_leftover_conversions(file: str, conversions: int) -> None:
    path = ENGINES / f"{file}.graph.json"
    graph = layers.read(path)
    assert graph.signals.conversions == conversions == recount(json.loads(path.read_text()))
    assert graph.origin == "measured"
    assert graph.signals.int8_share == (0.0 if file.endswith("fp16") else 1.0)


@needs_engines
@pytest.mark.parametrize(
    "path", sorted([*ENGINES.glob("*/*.graph.json"), *ENGINES.glob("*/*layers.json")]), ids=lambda path: path.stem
)
def test_every_recorded_engine(path: Path) -> None:
    graph = layers.read(path)
    tensors = [tensor for layer in graph.layers for tensor in (*layer.inputs, *layer.outputs)]
    assert tensors
    assert not [tensor for tensor in tensors if tensor.dtype == "unknown"]
    assert graph.signals.traffic_bytes is not None
    assert not any("\x1e" in name or "\x1f" in name for layer in graph.layers for name in layer.onnx_nodes)


@needs_engines
def test_version_11_has_no_conversions_and_no_cache_inputs() -> None:
    graph = layers.read(ENGINES / "trt11.0-mnist-b200" / "layers.json")
    assert graph.signals.conversions is None
    assert graph.layers[2].onnx_nodes == ("node_conv2d", "node_relu")
    assert not any(tensor.dtype == "uint8" for layer in graph.layers for tensor in layer.inputs)


@needs_engines
def test_profile_gives_every_layer_its_time() -> None:
    folder = ENGINES / RESNET
    graph = layers.read(folder / "qat.graph.json", folder / "qat.profile.json")
    rows = json.loads((folder / "qat.profile.json").read_text())[1:]
    assert all(layer.time_us is not None for layer in graph.layers)
    assert graph.signals.time_us == pytest.approx(1000 * sum(row["medianMs"] for row in rows))
    assert graph.signals.conversions == 10
    with pytest.raises(ModelError, match="names none"):
        layers.read(folder / "qat.graph.json", ENGINES / "trt10.1-rtx3060" / "alexnet-fp16.profile.json")


def test_names_only(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text(
        json.dumps(
            {"Layers": ["conv1.weight + Conv_9", "Reformatting CopyNode for Input Tensor 0 to x"], "Bindings": ["x"]}
        )
    )
    graph = layers.read(path)
    assert [layer.onnx_nodes for layer in graph.layers] == [("conv1.weight", "Conv_9"), ()]
    assert graph.signals.conversions is graph.signals.traffic_bytes is graph.signals.float_writes is None
    assert "layer names only" in graph.notes[0]


def test_malformed_layers(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    documents: tuple[dict[str, list[object]], ...] = ({"Layers": []}, {"Layers": [{"Name": "x"}]}, {"Layers": [3]})
    for document in documents:
        path.write_text(json.dumps(document))
        with pytest.raises(ModelError, match=r"layers\.json"):
            layers.read(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Row major linear FP32", "float32"),
        ("Row major linear BF16 format.", "bfloat16"),
        ("UInt8", "uint8"),
        ("BFloat16", "bfloat16"),
        ("N/A due to dynamic shapes", "unknown"),
        ("", "unknown"),
    ],
)
def test_dtype_is_found_by_word(text: str, expected: str) -> None:
    assert dtype(text) == expected
