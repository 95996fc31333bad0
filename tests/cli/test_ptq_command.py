"""`trtq ptq` as a user runs it: the commands of its page, what it prints, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tests.conftest import ROOT, check_trtq, run_trtq, sentences
from trtq import qdq
from trtq.cli import app

PAGE = ROOT / "docs" / "ptq.md"
CONVOLUTIONS = {
    "/stem/Conv": (4, 3, "images", "stem"),
    "/left/Conv": (4, 4, "active", "left"),
    "/detect/box/Conv": (4, 8, "joined", "box"),
    "/detect/score/Conv": (2, 4, "box", "score"),
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed")


def write_network(path: Path, *, inputs: int = 1) -> None:
    """A stem, a Concat of both sides of a branch, and a head of two convolutions, all 1x1 on 32x32 pictures."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for name, (outputs, channels, source, target) in CONVOLUTIONS.items():
        values = random.normal(size=(outputs, channels, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"{target}.weight"))
        nodes.append(helper.make_node("Conv", [source, f"{target}.weight"], [target], name=name))
    nodes.insert(1, helper.make_node("Relu", ["stem"], ["active"], name="/stem/Relu"))
    nodes.insert(3, helper.make_node("Concat", ["active", "left"], ["joined"], name="/join/Concat", axis=1))
    fed = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32]) for name in ("images", "more")[:inputs]
    ]
    given = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 2, 32, 32])]
    graph = helper.make_graph(nodes, "network", fed, given, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, a folder of pictures, and an array."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    write_network(tmp_path / "model.onnx")
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(1)
    for index in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    np.save(tmp_path / "images.npy", random.random((20, 3, 32, 32), np.float32))
    return tmp_path


def test_every_command_of_the_page_runs_and_its_files_are_clean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```$", PAGE.read_text())
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 8 and all(line.startswith("trtq ") for line in lines)
    monkeypatch.chdir(folder)
    for line in lines:
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.exception or done.output}"
        if " lint " in line:
            assert done.stdout.endswith(": clean\n")
        if " unify " in line:
            assert "0 edges changed" in done.stdout
    assert (folder / "unified.onnx").read_bytes() != b"" and (folder / "int8-trt8.onnx").exists()


def test_the_page_s_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text())
    monkeypatch.chdir(folder)
    exec(compile(code.replace("64, 64", "32, 32"), str(PAGE), "exec"), {})  # this network's images are smaller
    assert capsys.readouterr().out.startswith("0 0 0")  # images of zeros: every tensor is zero and stays float


def test_it_prints_a_table_progress_and_what_stays_float(folder: Path) -> None:
    done = run_trtq(
        "ptq", "model.onnx", "--calibration", "images", "-o", "o.onnx", "--exclude", "/detect/*", cwd=folder
    )
    assert done.returncode == 0
    rows = dict(re.findall(r"(?m)^(.+?)  +(\S.*?) *$", done.stdout))
    assert rows == {
        "layers in int8": "2",
        "layers left float": "2",
        "Q/DQ pairs": "2",
        "scales that tensors share": "0",
        "ranges": "mse on 3 images",
    }
    assert "float: Conv box: excluded by '/detect/*'" in done.stdout
    assert "batches: 3 of 3" in done.stderr


def test_json_says_what_was_put_in(folder: Path) -> None:
    target = folder / "o.onnx"
    document = json.loads(
        check_trtq(
            "ptq",
            folder / "model.onnx",
            "--calibration",
            folder / "images.npy",
            "-o",
            target,
            "--json",
            "--images",
            "5",
        )
    )
    assert document.keys() == {
        "file", "calibrator", "images", "layers", "pairs", "groups", "amax", "left_float", "notes",
    }  # fmt: skip
    assert (document["layers"], document["pairs"], document["groups"], document["images"]) == (4, 4, 1, 5)
    assert document["amax"]["active"] == document["amax"]["joined"] > 0
    (group,) = qdq.groups(qdq.load(target))
    assert group.agrees and set(group.tensors) == {"active", "joined"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--calibration", "images", "-o", "model.onnx"], 2, "model.onnx: is the input itself"),
        (["--calibration", "absent", "-o", "o.onnx"], 2, "absent: no such folder or file"),
        (["--calibration", "images", "-o", "o.onnx", "--exclude", "/detekt/*"], 2, "did you mean '/detect/*'?"),
        (["--calibration", "images", "-o", "o.onnx", "--percentile", "0"], 2, "percentile is 0.0; it must be"),
        (["--calibration", "images", "-o", "model.onnx/o.onnx"], 5, "model.onnx/o.onnx"),
    ],
)
def test_what_it_refuses_is_one_sentence_and_leaves_no_file(
    folder: Path, arguments: list[str], code: int, message: str
) -> None:
    before = (folder / "model.onnx").read_bytes()
    done = run_trtq("ptq", "model.onnx", *arguments, cwd=folder)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    (sentence,) = sentences(done.stderr)
    assert message in sentence
    assert (folder / "model.onnx").read_bytes() == before and not (folder / "o.onnx").exists()


def test_networks_that_cannot_be_fed_or_quantized_are_refused(folder: Path) -> None:
    write_network(folder / "two.onnx", inputs=2)
    done = run_trtq("ptq", "two.onnx", "--calibration", "images", "-o", "o.onnx", cwd=folder)
    assert done.returncode == 2 and "inputs are images, more" in done.stderr
    run_trtq("ptq", "model.onnx", "--calibration", "images", "-o", "int8.onnx", cwd=folder)
    done = run_trtq("ptq", "int8.onnx", "--calibration", "images", "-o", "o.onnx", cwd=folder)
    assert done.returncode == 2 and "holds Q/DQ nodes already" in done.stderr
