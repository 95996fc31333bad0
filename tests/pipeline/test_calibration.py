"""Calibration images for back ends that look for ranges of their own, and the native form in a recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import NAME, check_trtq, write_recipe
from trtq.backends import calibrator
from trtq.config import load_recipe
from trtq.pipeline import calibration
from trtq.pipeline.result import result_rows

ENGINE = '\n[engine]\nbackends = ["rtx", "ort", "ort-native"]\n'


def test_batches_are_saved_in_their_order_and_go_with_the_block() -> None:
    batches = [np.full((2, 3), number, np.float64) for number in range(12)]
    with calibration.saved(batches) as folder:
        assert folder is not None
        read = [np.load(path) for path in sorted(folder.glob("*.npy"))]
        assert [one.dtype.name for one in read] == ["float32"] * 12
        np.testing.assert_array_equal(np.stack(read), np.stack(batches))
    assert not folder.exists()


def test_a_recipe_s_calibration_images_are_what_tensorrt_s_calibrator_takes(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    with calibration.saved(calibration.images(recipe), 5) as folder:
        assert folder is not None
        files = calibrator.batch_files(folder)
        assert len(files) == 4  # 16 images, the last file filled up
        calibrator.check_batches(files, (5, 3, 64, 64))


def test_a_back_end_that_wants_none_gets_none() -> None:
    with calibration.saved(None) as folder:
        assert folder is None
    assert [calibration.wanted(*one) for one in (("ort", "qat"), ("ort-native", "fp32"), ("ort-native", "qat"))] == [
        False,
        False,
        True,
    ]


def test_the_native_form_stands_beside_the_exported_one_and_changes_nothing_else(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copytree(built.with_suffix(""), tmp_path / NAME)
    recipe = tmp_path / built.name
    recipe.write_text(built.read_text() + ENGINE)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("engine.*")) if path.suffix != ".json"}
    output = json.loads(check_trtq("build", recipe, "--mode", "ptq,qat", "--json"))
    assert all(path.read_bytes() == content for path, content in before.items())
    for mode in ("fp32", "naive", "ptq", "qat"):
        assert (tmp_path / NAME / mode / "engine.ort-native.onnx").stat().st_size
    rows = {row.mode: row for row in result_rows(load_recipe(recipe))}
    assert not rows["fp32"].native_accuracy
    for mode in ("naive", "ptq", "qat"):
        assert rows[mode].native_accuracy.keys() == rows[mode].accuracy.keys() > set()
        assert output["modes"][mode]["native_accuracy"] == rows[mode].native_accuracy
    assert "map50, as exported" in check_trtq("build", recipe, "--mode", "ptq,qat")
    page = (tmp_path / NAME / "report.html").read_text()
    assert "map50, as exported" in page
    assert "map50, native" in page
