"""What A and B of a comparison may be, and what is said where they are none of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from tests.compare.branches_onnx import branches
from tests.conftest import write_recipe
from trtq import files as files_room
from trtq.cli import app
from trtq.compare import assert_fused
from trtq.compare.subjects import resolve
from trtq.errors import ConfigError, ModelError, TrtqError
from trtq.layers.graph import LayerGraph

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines" / "trt8-resnet18-a100"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with two modes built: the layers of each, its ONNX file and an engine with its manifest."""
    path = write_recipe(tmp_path)
    for mode, unified in (("naive", False), ("qat", True)):
        folder = path.with_suffix("") / mode
        folder.mkdir(parents=True)
        onnx.save(branches(unified=unified, consumers=True), folder / "model.onnx")
        graph = compiled(folder / "model.onnx")
        graph.save(folder / "layers.json")
        (folder / "engine.rtx.plan").write_bytes(b"engine")
        manifest = {"plan_sha256": "", "onnx_sha256": graph.onnx_sha256, "facts": {"version": "1.7.1"}}
        (folder / "engine.rtx.plan.json").write_text(json.dumps(manifest))
    return path


def compiled(path: Path) -> LayerGraph:
    return dataclasses.replace(resolve(path).graph, origin="compiled", source="TensorRT-RTX 1.7.1")


def diff(*arguments: str | Path) -> dict[str, object]:
    done = CliRunner().invoke(app, ["diff", *map(str, arguments), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_two_modes_of_a_recipe_are_what_was_built_with_the_onnx_file_of_each(recipe: Path) -> None:
    found = resolve(recipe, "naive")
    assert found.graph.origin == "compiled" and found.name == "yolov7-tiny-digits naive"
    assert found.onnx is not None and found.onnx.samefile(recipe.with_suffix("") / "naive" / "model.onnx")
    document = diff(recipe, "--mode", "naive,qat")
    assert (document["a"], document["b"]) == ("yolov7-tiny-digits naive", "yolov7-tiny-digits qat")
    assert document["origins"] == {"a": "compiled", "b": "compiled"} and document["differences"]


def test_an_engine_stands_for_the_layers_beside_it(recipe: Path) -> None:
    plan = recipe.with_suffix("") / "qat" / "engine.rtx.plan"
    found = resolve(plan)
    assert found.graph == resolve(recipe, "qat").graph and found.onnx is not None
    # The layers of another back end's engine, which was built into the same folder later, are not this one's.
    layers = plan.with_name("layers.json")
    layers.write_text(layers.read_text().replace("TensorRT-RTX 1.7.1", "TensorRT 10.3"))
    with pytest.raises(ModelError, match=r"is an engine, and no file with its layers lies beside it; write one as"):
        resolve(plan)
    compiled(plan.with_name("model.onnx")).save(plan.with_name("engine.rtx.layers.json"))
    assert resolve(plan).graph.source == "TensorRT-RTX 1.7.1"


def test_an_engine_without_a_manifest_takes_what_lies_beside_it(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.engine").write_bytes(b"engine")
    shutil.copy(recipe.with_suffix("") / "qat" / "layers.json", tmp_path / "mine.layers.json")
    assert resolve(tmp_path / "mine.engine").graph.origin == "compiled"


def test_layers_lead_to_the_onnx_file_of_their_hash_alone(recipe: Path) -> None:
    folder = recipe.with_suffix("") / "qat"
    shutil.move(folder / "model.onnx", folder / "mended.onnx")
    onnx.save(branches(unified=False, consumers=True), folder / "model.onnx")
    found = resolve(folder)
    assert found.onnx is not None and found.onnx.name == "mended.onnx"
    assert found.graph.onnx_sha256 == files_room.sha256(found.onnx)
    (folder / "mended.onnx").unlink()
    assert resolve(folder).onnx is None


def test_origins_of_all_kinds_compare_and_each_is_told(recipe: Path) -> None:
    model = recipe.with_suffix("") / "qat" / "model.onnx"
    document = diff(recipe, model, "--mode", "qat,ptq", "--fail-on", "conversions>1")
    assert document["origins"] == {"a": "compiled", "b": "predicted"} and document["failed"] == []
    done = CliRunner().invoke(app, ["diff", str(recipe), str(model), "--mode", "qat,ptq"])
    assert "yolov7-tiny-digits qat: compiled, TensorRT-RTX 1.7.1" in done.stdout
    assert "model.onnx: predicted, TensorRT's documented Q/DQ processing" in done.stdout


def test_a_gate_takes_a_recipe_and_a_mode(recipe: Path) -> None:
    with pytest.raises(AssertionError, match=r"conversions is \d+ \(compiled\)"):
        assert_fused(recipe, mode="naive")
    assert_fused(recipe, "float_writes>100", mode="qat")
    assert CliRunner().invoke(app, ["diff", str(recipe), "--mode", "qat,naive", "--fail-on", "conversions>1"]).exit_code


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_times_come_with_a_profile_of_each_side() -> None:
    names = ("qat", "qat-residual-qgap")
    a, b = (SHARED / f"{name}.graph.json" for name in names)
    profiles = [
        word
        for side, name in zip("ab", names, strict=True)
        for word in (f"--profile-{side}", SHARED / f"{name}.profile.json")
    ]
    assert diff(a, b)["total_us"] is None
    assert diff(a, b, *profiles)["total_us"] == pytest.approx(-423, abs=1)
    times = [
        word
        for side, name in zip("ab", names, strict=True)
        for word in (f"--times-{side}", SHARED / f"{name}.timing.json")
    ]
    assert diff(a, b, *profiles, *times)["engine_us"] == pytest.approx(-382, abs=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{recipe}", "--mode", "fp16,qat"], ConfigError, "mode 'fp16' is not built; run `trtq build"),
        (["{recipe}", "--mode", "ptq,qat"], ConfigError, ".toml --mode ptq`"),
        (["{recipe}"], ConfigError, "give a second one to compare it with, or two modes of it, as in --mode ptq,qat"),
        (["{recipe}", "{model}"], ConfigError, "is a recipe; say which of its modes, as in --mode fp16,qat"),
        (["{recipe}", "--mode", "qat"], ConfigError, "must be two of fp32, fp16, naive, ptq, qat"),
        (["{recipe}", "--mode", "qat,int8"], ConfigError, "must be two of"),
        (["{model}", "--mode", "qat,naive"], ConfigError, "mode 'naive' is a recipe's"),
        (["{layers}"], ConfigError, "give a second one to compare it with"),
        (["{layers}", "{layers}", "--mode", "ptq,qat"], ConfigError, "neither A nor B is one"),
        (["{model}", "{model}", "--profile-a", "{layers}"], ConfigError, "are predicted"),
        (["{layers}", "{layers}", "--profile-a", "{layers}"], ModelError, "these layers are compiled"),
        (["{layers}", "{layers}", "--times-a", "{layers}"], ConfigError, "belong together"),
        (["{layers}", "{layers}", "--times-a", "{layers}", "--times-b", "{layers}"], ModelError, "exportTimes"),
        (["{folder}", "{layers}"], ModelError, "name the folder of a mode in it (naive, qat)"),
        (["{layers}", "none.plan"], ModelError, "none.plan: no such file"),
        (["{layers}", "none.toml"], ConfigError, "none.toml: no such recipe"),
        (["{layers}", "none.onnx"], ModelError, "none.onnx: no such file"),
    ],
)
def test_what_is_none_of_it_is_refused_in_one_sentence(
    arguments: list[str], error: type[TrtqError], message: str, recipe: Path
) -> None:
    folder = recipe.with_suffix("")
    places = {
        "recipe": recipe, "folder": folder, "model": folder / "qat" / "model.onnx",
        "layers": folder / "qat" / "layers.json",
    }  # fmt: skip
    with pytest.raises(error) as refused:
        diff(*(word.format(**places) for word in arguments))
    assert message in str(refused.value) and "\n" not in str(refused.value) and refused.value.exit_code == 2
