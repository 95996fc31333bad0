"""`trtq predict` as a user meets it: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.predict.qdq_networks import Builder, resnet18
from trtq import files, qdq
from trtq.cli import app
from trtq.errors import ConfigError, ModelError
from trtq.layers import read
from trtq.predict import predict


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predict") / "model.onnx"
    qdq.save(resnet18(), path)
    return path


def predicted(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_the_json_form_labels_itself_and_every_statement(model: Path) -> None:
    document = json.loads(predicted(model, "--json").stdout)
    assert (document["origin"], document["mode"], document["conversions"]) == ("predicted", "explicit", 10)
    assert not any("holds no Q" in note for note in document["notes"])
    assert "TensorRT 8.4 and 8.5" in document["validated_on"]
    assert set(document["tensors"]) == set(document["confidence"])
    assert all(layer["confidence"] for layer in document["layers"]) and document["not_predicted"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("qat", "mode explicit, validated on engines of TensorRT 8.4 and 8.5"),
        ("ptq", "implicit PTQ, the file's Q and DQ left out, not validated: no reference engine"),
        ("fp16", "a float engine, FP16 wherever TensorRT chooses it, the file's Q and DQ left out"),
        ("fp32", "a float32 engine, the file's Q and DQ left out"),
    ],
)
def test_each_mode_says_what_it_is_and_what_it_was_validated_on(mode: str, words: str, model: Path) -> None:
    text, document = predicted(model, "--mode", mode).stdout, predicted(model, "--mode", mode, "--json").stdout
    assert words in text and words in json.loads(document)["notes"][0]
    assert "predicted" in text and "measured" not in text and "not predicted: layout reformats" in text


def test_written_layers_know_their_file(model: Path, tmp_path: Path) -> None:
    assert predicted(model, "-o", tmp_path / "layers.json").exit_code == 0
    graph = read(tmp_path / "layers.json")
    assert (graph.origin, graph.onnx_sha256) == ("predicted", files.sha256(model))


def test_a_later_tensorrt_makes_less_certain(model: Path) -> None:
    document = json.loads(predicted(model, "--target", "trt10", "--json").stdout)
    assert set(document["confidence"].values()) == {"likely"}
    assert "certain" not in {layer["confidence"] for layer in document["layers"]}


def test_what_cannot_be_predicted_is_refused_in_one_sentence(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    cases = (
        ([tmp_path / "none.onnx"], ModelError, "no such file"),
        ([tmp_path / "text.onnx"], ModelError, "is not an ONNX file"),
        ([tmp_path], ModelError, str(tmp_path)),
        ([model, "--target", "trt7"], ConfigError, "trt7"),
        ([model, "--mode", "ptq", "--target", "rtx"], ConfigError, "rtx has no implicit PTQ"),
    )
    for arguments, kind, message in cases:
        error = predicted(*arguments).exception
        assert isinstance(error, kind) and message in str(error) and "\n" not in str(error), arguments
    assert predicted(model, "--mode", "int8").exit_code == 2


def test_a_network_without_any_operator_that_counts_is_predicted() -> None:
    b = Builder()
    graph = predict(b.model(b.same("Identity", b.input(), "same")))
    assert graph.signals.conversions == 0 and any("the file holds no Q and no DQ" in note for note in graph.notes)
