"""`trtq lint` and `trtq rule`: targets, annotations, calibration images, pages."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.conftest import ROOT, check_trtq, run_trtq, sentences
from trtq.rules import RULES, catalogue, rule


def written(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(text), path)
    return path


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """A Conv+Add whose residual nothing quantizes: its range is not in the file."""
    text = rule("TQ201").bad.replace(
        "sum = Add (branch, x)", "shortcut = Sigmoid (x)\n    sum = Add (branch, shortcut)"
    )
    return written(tmp_path / "residual.onnx", text)


def test_github_annotations_are_one_escaped_line_each(tmp_path: Path) -> None:
    file = written(tmp_path / "bad,1.onnx", rule("TQ101").bad)
    lines = check_trtq("lint", file, "--format", "github", "--select", "TQ101", code=1).splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"::warning file=\S+bad%2C1\.onnx,title=TQ101 concat-scales-differ::tensor.+", lines[0])


def test_a_target_leaves_out_rules_that_do_not_hold_for_it(tmp_path: Path) -> None:
    some = next((one for one in RULES if "trt8.6" not in one.targets), None)
    if some is None:
        pytest.skip("every rule holds for every target")
    file = written(tmp_path / "bad.onnx", some.bad)
    found = json.loads(run_trtq("lint", file, "--json", "--target", "trt8.6").stdout)["findings"]
    assert some.code not in {one["code"] for one in found}


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    done = run_trtq("lint", written(tmp_path / "a.onnx", rule("TQ101").good), "--target", "trt9.0")
    assert done.returncode == 2
    assert "target 'trt9.0' is not known" in sentences(done.stderr)[0]


def test_without_images_a_missing_range_stays_open_and_with_them_it_is_mended(residual: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    options = ("lint", residual, "--select", "TQ201", "--fix", "-o", tmp_path / "out.onnx", "--json")
    left = json.loads(check_trtq(*options, code=1))
    assert [(one["code"], one["fixable"]) for one in left["findings"]] == [("TQ201", False)]
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((3, 2, 4, 4), dtype=np.float32))
    mended = json.loads(check_trtq(*options, "--calibration", tmp_path / "images.npy"))
    assert mended["mended"] == 1
    scales = {one.name for one in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert len(scales) > len({one.name for one in onnx.load(residual).graph.initializer})


def test_broken_images_are_one_sentence(residual: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    (tmp_path / "images.npy").write_bytes(b"not an array")
    done = run_trtq("lint", residual, "--calibration", tmp_path / "images.npy")
    assert done.returncode == 2, done.stderr
    assert len(sentences(done.stderr)) == 1


def test_the_catalogue_is_the_rules_own_pages() -> None:
    assert (ROOT / "docs" / "rules.md").read_text() == catalogue(), (
        "write it again: trtq rule --markdown > docs/rules.md"
    )
    for one in RULES:
        assert f"## {one.page.strip().splitlines()[0]}" in catalogue()


def test_rule_prints_a_page_and_lists_all() -> None:
    assert "Why it matters" in check_trtq("rule", "TQ101")
    assert len(check_trtq("rule").splitlines()) == len(RULES)
    assert "did you mean 'TQ" in sentences(run_trtq("rule", "TQ10").stderr)[0]
