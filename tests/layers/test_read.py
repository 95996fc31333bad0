"""Which file is what: `layers.read` and `trtq layers` on files of every sort, and what each refusal says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import check_trtq, run_trtq
from trtq import layers
from trtq.errors import ModelError

NAMES = {"Layers": ["conv + relu", "pool"], "Bindings": []}
PROFILE = [{"count": 1}, {"name": "conv + relu", "averageMs": 0.002}, {"name": "pool", "averageMs": 0.001}]
KEYS = {
    "file", "origin", "layers", "conversions", "double_writes", "requantizes", "float_writes", "traffic_bytes",
    "int8_share", "time_us",
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PROFILE, "--profile"),
        ([{"computeMs": 1}], "--exportLayerInfo"),
        ({"model_options": {}}, "trt-engine-explorer"),
        ([], "holds no layers"),
        ({"Layers": {}}, "holds no layers"),
    ],
)
def test_other_json_is_named(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=words):
        layers.read(path)


def test_json_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(NAMES)[:-9])
    with pytest.raises(ModelError, match="cut short"):
        layers.read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="folder"):
        layers.read(tmp_path)
    with pytest.raises(ModelError, match="device"):
        layers.read(Path(os.devnull))
    with pytest.raises(ModelError, match="cannot be read"):
        layers.read(Path("a\0b"))


def test_the_command_joins_a_profile_and_converts(tmp_path: Path) -> None:
    engine, profile, output = (tmp_path / name for name in ("engine.json", "profile.json", "layers.json"))
    engine.write_text(json.dumps(NAMES))
    profile.write_text(json.dumps(PROFILE))
    done = run_trtq("layers", engine, "--profile", profile, "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == KEYS
    assert (found["layers"], found["time_us"], found["origin"]) == (2, 3.0, "measured")
    assert "layer names only" in done.stderr
    again = json.loads(check_trtq("layers", output, "--json"))
    assert {**again, "file": ""} == {**found, "file": ""}


def test_times_are_for_measured_layers_alone(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    with pytest.raises(ModelError, match="these layers are compiled"):
        layers.read(Path(__file__).with_name("branches.table.txt"), profile)


def test_options_for_one_file(tmp_path: Path) -> None:
    engine = tmp_path / "engine.json"
    engine.write_text(json.dumps(NAMES))
    done = run_trtq("layers", engine, engine, "--profile", engine)
    assert (done.returncode, "--profile takes one file" in done.stderr) == (2, True)
    done = run_trtq("layers", engine, "--optimization-profile", "3")
    assert (done.returncode, "no optimization profile 3" in done.stderr) == (2, True)


def test_precision_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    tensor = {"Name": "x", "Dimensions": [1], "Format/Datatype": "Half"}
    row = {"Name": "a", "LayerType": "gemm", "Inputs": [tensor], "Outputs": [], "Weights": {"Type": "Int8"}}
    path.write_text(json.dumps({"Layers": [row]}))
    graph = layers.read(path)
    graph.save(path)
    assert layers.read(path) == graph
    assert graph.layers[0].precision == "int8"
    document = json.loads(path.read_text())
    del document["layers"][0]["precision"]  # as versions before 0.5 wrote it
    path.write_text(json.dumps(document))
    assert layers.read(path).layers[0].precision == "unknown"
