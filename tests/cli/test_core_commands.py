"""The core install: what works on a machine without torch, ONNX Runtime and TensorRT."""

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser

from tests.conftest import ROOT, check_trtq, run_trtq, sentences
from trtq.rules import rule

TABLE = ROOT / "tests" / "layers" / "branches.table.txt"
ABSENT = ("torch", "torchvision", "pytorch_quantization", "onnxruntime", "tensorrt_rtx", "sklearn", "pycocotools")


@pytest.fixture
def qdq_file(tmp_path: Path) -> Path:
    """A file whose Concat joins two scales."""
    path = tmp_path / "bad.onnx"
    onnx.save(parser.parse_model(rule("TQ101").bad), path)
    return path


def without_packages(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line where none of ABSENT can be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))"
    code = f"{block}; sys.argv = ['trtq', *{list(map(str, arguments))!r}]; from trtq.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_lint_finds_and_mends(qdq_file: Path, tmp_path: Path) -> None:
    found = json.loads(check_trtq("lint", qdq_file, "--json", code=1))
    assert "TQ101" in [one["code"] for one in found["findings"]]
    assert "mended, 0 remain" in check_trtq("lint", qdq_file, "--fix", "-o", tmp_path / "good.onnx")
    assert "clean" in check_trtq("lint", tmp_path / "good.onnx")


def test_lint_wants_fix_and_output_together(qdq_file: Path) -> None:
    assert "go together" in sentences(run_trtq("lint", qdq_file, "--fix").stderr)[0]


def test_unify_prints_its_table_and_json(qdq_file: Path, tmp_path: Path) -> None:
    printed = check_trtq("unify", qdq_file, "-o", tmp_path / "a.onnx")
    assert "1 differed" in printed
    document = json.loads(check_trtq("unify", qdq_file, "-o", tmp_path / "b.onnx", "--json"))
    assert len(set(document["groups"][0]["scales"])) > 1
    assert document["edits"]
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_layers_convert_and_diff_compares_them(tmp_path: Path) -> None:
    check_trtq("layers", TABLE, "-o", tmp_path / "layers.json")
    one, other = (json.loads(check_trtq("layers", path, "--json")) for path in (TABLE, tmp_path / "layers.json"))
    assert {**one, "file": ""} == {**other, "file": ""}
    diff = json.loads(check_trtq("diff", TABLE, tmp_path / "layers.json", "--json"))
    assert diff["aligned_share"] == 1
    assert diff["differences"] == []


@pytest.mark.parametrize("command", ["lint", "unify", "fp16", "predict", "layers", "diff", "doctor"])
def test_commands_of_the_core_need_no_other_package(command: str, qdq_file: Path, tmp_path: Path) -> None:
    arguments: dict[str, list[str | Path]] = {
        "lint": [qdq_file],
        "unify": [qdq_file, "-o", tmp_path / "out.onnx"],
        "fp16": [qdq_file, "-o", tmp_path / "out.onnx"],
        "predict": [qdq_file],
        "doctor": [],
        "layers": [TABLE],
        "diff": [TABLE, TABLE],
    }
    done = without_packages(command, *arguments[command])
    assert done.returncode == (1 if command == "lint" else 0), done.stderr


def test_a_report_needs_no_other_package(built: Path, tmp_path: Path) -> None:
    done = without_packages("report", built, "-o", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("command", "extra"),
    [("quantize", "torch"), ("eval", "ort"), ("build", "rtx"), ("build --backend rtx", "rtx")],
)
def test_a_missing_package_names_its_extra(command: str, extra: str, qdq_file: Path) -> None:
    recipe = ROOT / "engines" / "yolov7-tiny-digits.toml"
    name, *options = command.split()
    arguments: dict[str, list[str | Path]] = {
        "quantize": [recipe],
        "eval": [qdq_file, "--recipe", recipe],
        "build": [qdq_file],
    }
    done = without_packages(name, *arguments[name], *options)
    assert done.returncode == 3, done.stderr
    # Left to choose, build names every extra that would do.
    assert re.search(rf"trtq\[{extra}[],]", sentences(done.stderr)[0])
