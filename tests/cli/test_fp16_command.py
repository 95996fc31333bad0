"""`trtq fp16` as a user runs it: the commands of its page, what it says, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.conftest import ROOT, check_trtq, run_trtq, sentences

PAGE = ROOT / "docs" / "fp16.md"
FLOAT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x) => (float[1,3,8,8] y)
<float big = {70000.0}>
{
    a = Relu (x)
    b = Mul (a, big)
    y = Sigmoid (b)
}
"""
QUANTIZED = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,8,8] x) => (float[1,2,8,8] y)
<float s = {0.02}, int8 z = {0}, int8[2,2,1,1] w = {100, 3, 20, 30}, float[2] ws = {0.01, 0.02}, int8[2] wz = {0, 0}>
{
    xq = QuantizeLinear (x, s, z)
    xd = DequantizeLinear (xq, s, z)
    wd = DequantizeLinear <axis = 0> (w, ws, wz)
    y = Conv (xd, wd)
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = parser.parse_model(FLOAT)
    for node, name in zip(model.graph.node, ("/act/Relu", "/act/Mul", "/score/Sigmoid"), strict=True):
        node.name = name
    onnx.save(model, tmp_path / "model.onnx")
    onnx.save(parser.parse_model(QUANTIZED), tmp_path / "int8.onnx")
    return tmp_path


def test_it_says_what_stays_float32(folder: Path) -> None:
    output = check_trtq("fp16", folder / "model.onnx", "-o", folder / "half.onnx")
    assert "float32: 1 (constant 'big' reaches 7e+04): Mul b" in output
    assert output.splitlines()[-1].endswith("half.onnx: 2 nodes in FP16, 1 in float32, 4 casts")


def test_json_has_every_node_and_weight(folder: Path) -> None:
    arguments = ("fp16", folder / "int8.onnx", "-o", folder / "half.onnx", "--per-tensor-weights", "--json")
    document = json.loads(check_trtq(*arguments))
    assert document["kept"] == []
    assert document["weights"] == {"changed": ["y"], "left": []}
    assert document["half"] == 2
    onnx.checker.check_model(str(folder / "half.onnx"), full_check=True)


def test_ranges_come_from_calibration_images(folder: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("ONNX Runtime is not installed")
    np.save(folder / "images.npy", np.full((2, 3, 8, 8), 40000, np.float32))
    arguments = ("fp16", folder / "model.onnx", "-o", folder / "half.onnx", "--json")
    kept = json.loads(check_trtq(*arguments, "--calibration", folder / "images.npy"))["kept"]
    assert {one["name"]: one["reason"] for one in kept}["/act/Relu"] == "'a' reaches 4e+04"


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("model.onnx", ("--keep", "/score/Sigmoyd"), "did you mean '/score/Sigmoid'"),
        ("missing.onnx", (), "missing.onnx: no such file"),
        ("half.onnx", (), "is the input itself"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, model: str, options: tuple[str, ...], sentence: str) -> None:
    done = run_trtq("fp16", folder / model, "-o", folder / "half.onnx", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(sentences(done.stderr)) == 1
    assert not (folder / "half.onnx").exists()


def test_the_commands_of_the_page_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("trtq ")]
    assert len(lines) == 4
    np.save(folder / "images.npy", np.ones((2, 3, 8, 8), np.float32))
    for line in lines:
        if "--calibration" in line and importlib.util.find_spec("onnxruntime") is None:
            continue
        done = run_trtq(*shlex.split(line.replace("images/", "images.npy"))[1:], cwd=folder, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
