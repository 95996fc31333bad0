"""`trtq unify` as a user runs it: policies, what is left, and what is measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.conftest import check_trtq, run_trtq, sentences
from trtq import qdq, rules

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,3,8,8] x) => (float[1,6,8,8] y, float[1,3,8,8] z, float[1,3,8,8] w)
<float fine = {0.002}, float coarse = {0.0078}, float own = {0.01}, float other = {0.011}, int8 zero = {0}>
{
    gate = Sigmoid (x)
    joined = Concat <axis = 1> (x, x)
    joined_q = QuantizeLinear (joined, coarse, zero)
    y = DequantizeLinear (joined_q, coarse, zero)
    x_q = QuantizeLinear (x, fine, zero)
    z = DequantizeLinear (x_q, fine, zero)
    gate_q = QuantizeLinear (gate, own, zero)
    gate_dq = DequantizeLinear (gate_q, own, zero)
    again_q = QuantizeLinear (gate, other, zero)
    again_dq = DequantizeLinear (again_q, other, zero)
    w = Mul (gate_dq, again_dq)
}
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A Concat group of 12 dB and a group of one tensor quantized twice of 0.8 dB."""
    onnx.save(parser.parse_model(TEXT), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("ONNX Runtime is not installed")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(-0.2, 0.2, (3, 3, 8, 8)).astype(np.float32))
    return tmp_path / "images.npy"


def unified(network: Path, *options: str | Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        check_trtq("unify", network, "-o", network.with_name("out.onnx"), "--json", *options)
    )
    return document


def test_json_has_every_key_for_every_group(network: Path) -> None:
    document = unified(network)
    joined, twice = document["groups"]
    assert set(joined) >= {
        "tensors", "joined_by", "why", "scales", "scale", "coarser_bits", "predicted_loss_db", "measured_loss_db",
        "left", "reason",
    }  # fmt: skip
    assert joined["tensors"] == ["joined", "x"] and joined["joined_by"] == ["Concat joined"]
    assert joined["why"][0].startswith("Concat: ") and "more than once" in twice["why"][0]
    assert (joined["left"], joined["reason"], joined["measured_loss_db"]) == (False, None, None)
    assert [edit["tensor"] for edit in document["edits"]] == ["x", "x_q", "gate", "gate_q"]
    assert {"tensor", "node", "old_scale", "new_scale"} == set(document["edits"][0])


@pytest.mark.parametrize("policy", ["max", "output", "weighted"])
def test_each_policy_gives_each_group_one_scale(network: Path, policy: str) -> None:
    document = unified(network, "--policy", policy)
    scales = [group["scale"] for group in document["groups"]]
    wanted = {"max": [0.0078, 0.011], "output": [0.002, 0.011], "weighted": [0.00395, 0.01049]}[policy]
    assert scales == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("option", "word", "left"),
    [
        ("--leave", "Concat", [True, False]),
        ("--leave", "gate", [False, True]),
        ("--leave", "TQ103", [False, True]),
        ("--max-loss", "6", [True, False]),
        ("--max-loss", "0.1", [True, True]),
    ],
)
def test_groups_are_left_by_tensor_operator_rule_and_cost(
    network: Path, option: str, word: str, left: list[bool]
) -> None:
    document = unified(network, option, word)
    assert [group["left"] for group in document["groups"]] == left
    assert all(bool(group["reason"]) == group["left"] for group in document["groups"])
    output = network.with_name("out.onnx")
    assert (output.read_bytes() == network.read_bytes()) == all(left)
    findings = rules.lint(qdq.load(output), select=("TQ101", "TQ103"))
    assert len(findings) == sum(left)


def test_measured_stands_beside_predicted(network: Path, images: Path) -> None:
    document = unified(network, "--measure", images, "--calibration", images)
    for group in document["groups"]:
        assert group["measured_loss_db"] == pytest.approx(group["predicted_loss_db"], abs=0.7)
        assert len(group["measured_losses_db"]) == len(group["tensors"])
        assert {one["output"] for one in group["output_change"]} == {"y", "z", "w"}
    assert max(one["largest"] for one in document["output_change"]) > 0
    printed = check_trtq("unify", network, "-o", network.with_name("out.onnx"), "--measure", images, "--leave", "gate")
    assert "measured" in printed and "predicted" in printed and "outputs'" in printed
    assert "left: gate" in printed and "1 left" in printed
    assert "output z: SQNR" in printed


def test_measured_loss_decides_what_is_left(network: Path, images: Path) -> None:
    document = unified(network, "--measure", images, "--max-loss", "3")
    assert document["groups"][0]["reason"].startswith("measured loss")
    assert document["groups"][0]["measured_loss_db"] > 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--leave", "Concatenate"), "did you mean 'Concat'"),
        (("--measure", "absent"), "absent: no such folder or file"),
        (("--calibration", "absent.npy"), "absent.npy: no such folder or file"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_no_file(
    network: Path, options: tuple[str, ...], sentence: str
) -> None:
    output = network.with_name("out.onnx")
    done = run_trtq("unify", network, "-o", output, *options)
    assert done.returncode == 2, done.stderr
    assert sentence in sentences(done.stderr)[-1]
    assert not output.exists()


def test_pictures_are_measured_on(network: Path, images: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image.new("RGB", (20, 20), (30, 60, 90)).save(tmp_path / "a.png")
    assert unified(network, "--measure", tmp_path)["groups"][0]["measured_loss_db"] is not None
