"""What a report is gathered from: layers or their prediction, benchmarks, ranges, and the verdict on them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from trtq.bench import BenchResult, BenchRun, store
from trtq.compare import Comparison
from trtq.config import Recipe, load_recipe
from trtq.errors import ModelError
from trtq.layers.graph import Signals
from trtq.pipeline.benches import benches
from trtq.pipeline.ranges import calibrated_ranges
from trtq.pipeline.result import result_rows, write_report
from trtq.pipeline.verdict import verdict
from trtq.report.data import ModeRow

QUANTIZED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,8,8] x) => (float[1,4,8,8] y)
<float s = {0.1}, float t = {0.3}, float w_s = {0.5}, int8 z = {0}, int8[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,10,11,12}>
{
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    xr = QuantizeLinear(x, t, z)
    xe = DequantizeLinear(xr, t, z)
    wd = DequantizeLinear(w, w_s, z)
    a = Conv(xd, wd)
    b = Conv(xe, wd)
    y = Add(a, b)
}
"""
SIGNALS = Signals(10, None, 4, 0, 8, 2000, 0.9, None)
TIMED = BenchResult("qat", "trt", 1, (2000.0,) * 10, machine={"cpu": "a CPU", "gpus": [{"name": "a GPU"}]})


def recipe_in(folder: Path) -> Recipe:
    path = folder / "r.toml"
    path.write_text('[model]\nname = "resnet18"\n[data]\nname = "digits"\nimage_size = 32\n')
    return load_recipe(path)


def test_a_range_is_the_largest_of_a_tensors_quantizers_and_weights_have_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(parser.parse_model(QUANTIZED), path)
    [row] = calibrated_ranges({"fp32": tmp_path / "none.onnx", "ptq": path, "naive": path})
    assert row.tensor == "x"
    assert row.amax == {"ptq": pytest.approx(127 * np.float32(0.3))}
    assert calibrated_ranges({"naive": path})[0].amax.keys() == {"naive"}
    assert calibrated_ranges({}) == ()


def test_the_newest_benchmark_of_each_mode_and_back_end_counts(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    old = BenchRun("20260101T000000Z", (replace(TIMED, times_us=(9.0,)), replace(TIMED, name="other")))
    new = BenchRun("20260102T000000Z", (TIMED, replace(TIMED, name="ptq"), replace(TIMED, backend="ort")))
    for run in (new, old):
        store.save(run, store.folder_of(recipe) / f"{run.when}.json")
    (store.folder_of(recipe) / "20260103T000000Z.layers.json").write_text("{}")
    found = benches(recipe, ("fp32", "ptq", "qat"))
    assert {mode: sorted(one.backend for one in some) for mode, some in found.items()} == {
        "ptq": ["trt"],
        "qat": ["ort", "trt"],
    }
    assert {one.times_us[0] for some in found.values() for one in some} == {2000.0}


def test_a_damaged_benchmark_is_named(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    store.folder_of(recipe).mkdir(parents=True)
    (store.folder_of(recipe) / "broken.json").write_text('{"trtq_bench_run": 1}')
    with pytest.raises(ModelError, match=r"broken\.json"):
        benches(recipe, ("qat",))


def test_the_verdict_is_three_lines_whatever_is_known() -> None:
    for rows in ((), (ModeRow("fp32"),), (ModeRow("qat", {"top1": 0.9}),)):
        lines = verdict(rows, (), {})
        assert len(lines) == 3
        assert all(line.endswith(".") for line in lines)
    assert verdict((ModeRow("fp32"),), (), {})[2] == "Not benchmarked: no engine of this recipe has been timed."


def test_the_verdict_sets_modes_against_float_and_against_their_untied_scales() -> None:
    before = replace(SIGNALS, double_writes=20, float_writes=12, traffic_bytes=4000)
    rows = (
        ModeRow("fp32", {"top1": 0.9}, onnx_bytes=400),
        ModeRow("ptq", {"top1": 0.89}, onnx_bytes=100),
        ModeRow("qat", {"top1": 0.905}, onnx_bytes=100, signals=SIGNALS, naive_signals=before, origin="compiled"),
    )
    same = Comparison("ptq", "qat", 1.0, (), None, None)
    accuracy, engines, speed = verdict(
        rows, (same,), {"fp32": [replace(TIMED, name="fp32", times_us=(5000.0,) * 10)], "qat": [TIMED]}
    )
    assert accuracy.startswith("top-1: float 90.00, PTQ 89.00 (−1.00 points), QAT 90.50 (+0.50 points)")
    assert "written twice 20 → 4" in engines
    assert "traffic −50.0 %" in engines
    assert "PTQ and QAT run the same kernels" in engines
    assert speed.startswith("QAT runs 500.0 images a second on a GPU, 2.50 times as fast as float (trt, measured).")
    assert speed.endswith("4.0 times smaller than fp32’s.")


def test_a_gpu_counts_before_a_cpu_which_says_what_it_is() -> None:
    on_cpu = replace(TIMED, backend="ort", times_us=(1.0,))
    assert "(trt, measured)" in verdict((), (), {"qat": [on_cpu, TIMED]})[2]
    assert "on a CPU (ort, measured; a GPU’s speed differs)" in verdict((), (), {"qat": [on_cpu]})[2]


def test_without_engines_that_tell_layers_the_report_shows_what_is_predicted(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.with_suffix(""), tmp_path / built.stem)
    recipe = load_recipe(Path(shutil.copy(built, tmp_path)))
    for path in recipe.folder.glob("*/layers.json"):
        path.unlink()
    page, _ = write_report(recipe)
    rows = {row.mode: row for row in result_rows(recipe)}
    assert rows["fp32"].signals is None
    assert rows["qat"].origin == "predicted"
    text = page.read_text()
    assert "naive → ptq" in text
    assert '<span class="tag">compiled</span>' not in text
    assert "One scale a group: conversions" in text
    assert f"trtq unify {built.stem}/naive/model.onnx" in text
    assert str(tmp_path) not in text


def test_one_mode_alone_is_a_report(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.with_suffix("") / "fp32", tmp_path / built.stem / "fp32")
    recipe = load_recipe(Path(shutil.copy(built, tmp_path)))
    page, _ = write_report(recipe)
    text = page.read_text()
    assert "No quantized mode has been built" in text
    assert 'id="differences"' not in text
