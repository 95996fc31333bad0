"""Whole float networks through PTQ: every layer that can be is int8, lint is clean, and unify has nothing to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from tests.conftest import ROOT, check_trtq
from trtq import qdq, rules
from trtq.config import Calibrator
from trtq.data.images import load_images
from trtq.ptq import input_shape, insert, quantize_file, scale_groups

RECIPES = {"mobilenet_v2-digits": (53, 0), "yolov7-tiny-digits": (58, 12)}
HEAD = 3

# What int8 kernels enclose: a squeeze-and-excitation block and a spatial mean.
ENCLOSED = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,4,8,8] x) => (float[1,4] y)
{
    first = Conv <kernel_shape = [1, 1]> (x, w1)
    active = Relu (first)
    squeezed = GlobalAveragePool (active)
    excited = Conv <kernel_shape = [1, 1]> (squeezed, w2)
    gate = Sigmoid (excited)
    scaled = Mul (active, gate)
    second = Conv <kernel_shape = [1, 1]> (scaled, w3)
    inner = Sigmoid (second)
    silu = Mul (second, inner)
    third = Conv <kernel_shape = [1, 1]> (silu, w4)
    residual = Add (third, scaled)
    mean = ReduceMean <axes = [2, 3], keepdims = 0> (residual)
    y = MatMul (mean, wm)
}
"""


def enclosed() -> ir.Model:
    random = np.random.default_rng(0)
    weights = []
    for name, dims in (*((f"w{index}", "4,4,1,1") for index in range(1, 5)), ("wm", "4,4")):
        values = ", ".join(f"{value:.6f}" for value in random.normal(size=16))
        weights.append(f"float[{dims}] {name} = {{{values}}}")
    model = ir.from_proto(parser.parse_model(ENCLOSED.replace("{", f"<{', '.join(weights)}>\n{{", 1)))
    qdq.clean(model)
    return model


def assert_nothing_to_mend(path: Path) -> None:
    model = qdq.load(path)
    assert [f"{one.code} {one.message}" for one in rules.lint(model)] == []
    assert qdq.unify(model).edits == ()


@pytest.fixture(scope="module", params=RECIPES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path_factory.mktemp("float") / f"{request.param}.onnx"
    check_trtq("export", ROOT / "engines" / f"{request.param}.toml", "--mode", "fp32", "--output", path)
    return path


@pytest.mark.parametrize("calibrator", ["max", "entropy"])
def test_a_network_of_ours_comes_out_clean(exported: Path, tmp_path: Path, calibrator: Calibrator) -> None:
    target = tmp_path / "int8.onnx"
    images = load_images(ROOT / "engines" / f"{exported.stem}.toml", input_shape(qdq.load(exported)), 8)
    inserted = quantize_file(exported, target, images, calibrator=calibrator)
    assert (inserted.layers, inserted.groups) == RECIPES[exported.stem]
    assert inserted.left_float == ()
    onnx.checker.check_model(onnx.load(target), full_check=True)
    assert_nothing_to_mend(target)


def test_a_head_that_is_excluded_stays_float_and_the_rest_stays_clean(exported: Path, tmp_path: Path) -> None:
    if "yolov7" not in exported.name:
        pytest.skip("it has no detection head")
    target = tmp_path / "int8.onnx"
    images = load_images(ROOT / "engines" / f"{exported.stem}.toml", input_shape(qdq.load(exported)), 2)
    inserted = quantize_file(exported, target, images, exclude=["*detect*"])
    assert inserted.layers == RECIPES[exported.stem][0] - HEAD
    assert len(inserted.left_float) == HEAD and all("'*detect*'" in line for line in inserted.left_float)
    assert_nothing_to_mend(target)


def test_what_int8_kernels_enclose_gets_pairs_and_fused_activations_get_none() -> None:
    model = enclosed()
    groups = scale_groups(model)
    quantized = {tensor for group in groups for tensor in group}
    # Both inputs of the gate's Mul, the residual, the mean's input; not SiLU's, nor what the Add fuses into.
    assert quantized == {"x", "active", "squeezed", "gate", "scaled", "silu", "residual", "mean"}
    insert(model, dict.fromkeys(quantized, 1.0))
    assert [finding.message for finding in rules.lint(model)] == []


def test_a_range_that_only_a_rule_wants_is_optional_one_that_a_layer_needs_is_not() -> None:
    model = enclosed()
    amax = dict.fromkeys(("x", "active", "squeezed", "scaled", "silu", "mean"), 1.0)
    assert insert(model, amax).amax.keys() == amax.keys()
