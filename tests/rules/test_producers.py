"""Real files of five quantization tools: what is found in each, and that each builds in int8 once it is mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.installed import needs_rtx
from tests.rules.rule_graphs import run
from trtq import qdq, rules
from trtq.backends import BuildSpec, rtx
from trtq.errors import ModelError
from trtq.rules import RULES

PRODUCERS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "producers"
VALUE_RULES = [rule.code for rule in RULES if "TQ301" <= rule.code <= "TQ311"]
CONVOLUTIONS = 11
LARGEST_LOSS_DB = 1
FILES = {
    "fork-float": set(),
    "fork-modelopt-onnx-dq-only": set(),
    "fork-modelopt-onnx-entropy-fp32": set(),
    "fork-modelopt-onnx-max-fp16": set(),
    "fork-modelopt-onnx-max-fp32": set(),
    "fork-modelopt-torch-op17": set(),
    "fork-ort-default": {"TQ301", "TQ310"},
    "fork-ort-symmetric-per-channel": {"TQ310"},
    "fork-ort-tensorrt-style": set(),
    "fork-ort-uint8-percentile": {"TQ301", "TQ302", "TQ310"},
    "fork-pt2e-x86": {"TQ301", "TQ302"},
    "fork-pytorch-quantization-op13": set(),
    "fork-pytorch-quantization-op17": set(),
}


def load(name: str) -> tuple[Path, ir.Model]:
    path = PRODUCERS / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no {path.name}: the shared data is absent")
    return path, qdq.load(path)


@pytest.mark.parametrize("name", FILES)
def test_the_values_and_types_of_each_tool_are_judged_as_they_are(name: str) -> None:
    _, model = load(name)
    assert {finding.code for finding in rules.lint(model, select=VALUE_RULES)} == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_a_mended_file_is_as_close_to_the_float_network(name: str) -> None:
    _, model = load(name)
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    original = outputs(load("fork-float")[1], image)
    before = outputs(model, image)
    rules.mend(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for wanted, old, new in zip(original, before, outputs(model, image), strict=True):
        assert sqnr_db(wanted, new) > sqnr_db(wanted, old) - LARGEST_LOSS_DB


def outputs(model: ir.Model, image: np.ndarray) -> list[np.ndarray]:
    return run(model, **{model.graph.inputs[0].name or "": image})


def sqnr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(wanted.astype(np.float64) - found).sum())
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / max(noise, 1e-30)))


@needs_rtx
@pytest.mark.parametrize("name", [name for name, codes in FILES.items() if codes])
def test_a_file_that_tensorrt_refuses_builds_with_every_convolution_int8_once_mended(name: str, tmp_path: Path) -> None:
    path, model = load(name)
    with pytest.raises(ModelError, match="does not take"):
        rtx.build(BuildSpec(path), tmp_path / "engine.plan")
    rules.mend(model)
    qdq.save(model, tmp_path / "mended.onnx")
    engine = rtx.build(BuildSpec(tmp_path / "mended.onnx"), tmp_path / "engine.plan")
    assert engine.layers is not None
    int8 = [
        layer
        for layer in engine.layers.layers
        if layer.kind == "correlation" and any(tensor.dtype == "int8" for tensor in layer.inputs)
    ]
    assert len(int8) == CONVOLUTIONS
