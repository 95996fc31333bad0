"""A float ONNX file beside the quantized one that was made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from trtq import ptq
from trtq.cli import app

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
CHANNELS, SIZE, CLASSES = 16, 8, 10


def pooled_classifier(path: Path) -> Path:
    random = np.random.default_rng(0)
    weights = {
        "conv.weight": random.normal(size=(CHANNELS, CHANNELS, 3, 3)),
        "fc.weight": random.normal(size=(CLASSES, CHANNELS)),
        "fc.bias": random.normal(size=CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], name="/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="/relu/Relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["p"], ["f"], name="/Flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], name="/fc/Gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_what_mends_a_float_file_is_to_quantize_it(tmp_path: Path) -> None:
    source = pooled_classifier(tmp_path / "float.onnx")
    images = np.random.default_rng(0).random((4, 1, CHANNELS, SIZE, SIZE), np.float32)
    ptq.quantize_file(source, tmp_path / "int8.onnx", images, calibrator="max")
    done = CliRunner().invoke(app, ["diff", str(source), str(tmp_path / "int8.onnx"), "--json"])
    found = [one for one in json.loads(done.stdout)["differences"] if one["class"] == "int8 instead of float"]
    assert any("/pool/GlobalAveragePool" in one["onnx_nodes"] for one in found)
    for one in found:
        assert f"trtq ptq {source}" in one["remedy"] and "trtq lint" not in one["remedy"]
