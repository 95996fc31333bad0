"""engine.float_type: Q/DQ modes build from a file whose float part is FP16, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from tests.conftest import NAME, check_trtq, write_recipe
from trtq.config import load_recipe
from trtq.errors import ConfigError
from trtq.layers.graph import load_layers
from trtq.pipeline.modes import BuiltMode, Plan, stages

FLOAT16 = onnx.TensorProto.FLOAT16
HALF = '[engine]\nfloat_type = "fp16"\nper_tensor_weights = true\nbackends = ["rtx", "ort"]\n'


def half(folder: Path, extra: str = HALF) -> Path:
    recipe = write_recipe(folder)
    recipe.write_text(f"{recipe.read_text()}\n{extra}")
    return recipe


def names(recipe: Path, mode: BuiltMode) -> list[str]:
    plan = Plan(load_recipe(recipe), mode, lambda _: lambda done, total: None)
    return [stage.name for stage in stages(plan)]


def test_the_cast_is_a_stage_of_the_quantized_modes(tmp_path: Path) -> None:
    recipe = half(tmp_path)
    quantized: tuple[BuiltMode, ...] = ("naive", "ptq", "qat")
    for mode in quantized:
        assert names(recipe, mode)[-4:] == ["cast", "build-rtx", "build-ort", "eval"]
    plain: tuple[BuiltMode, ...] = ("fp32", "fp16")
    for mode in plain:
        assert "cast" not in names(recipe, mode)


def test_per_tensor_weights_are_for_fp16(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set engine\.float_type = \"fp16\" too"):
        load_recipe(half(tmp_path, "[engine]\nper_tensor_weights = true\n"))


def test_ptq_is_built_in_int8_and_fp16(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.with_suffix(""), tmp_path / NAME)
    recipe = tmp_path / built.name
    recipe.write_text(f"{built.read_text()}\n{HALF}")
    done = json.loads(check_trtq("build", recipe, "--mode", "ptq", "--json"))
    # Nothing of torch runs again: a cast, two engines and an evaluation, for ptq and what it is compared with.
    assert done["stages_run"] == 8
    folder = tmp_path / NAME / "ptq"
    floats = {name: constant_types(folder / name) for name in ("model.onnx", "model.fp16.onnx")}
    assert FLOAT16 in floats["model.fp16.onnx"]
    assert FLOAT16 not in floats["model.onnx"]
    graph, before = load_layers(folder / "layers.json"), load_layers(built.with_suffix("") / "ptq" / "layers.json")
    assert graph.signals.int8_share == before.signals.int8_share
    assert graph.signals.double_writes == 0
    types = [tensor.dtype for layer in graph.layers for tensor in layer.outputs]
    assert types.count("float16") > 10 * types.count("float32")
    facts = json.loads((folder / "manifest.json").read_text())["stages"]["cast"]["facts"]
    assert facts["weights"]["changed"]


def constant_types(path: Path) -> set[int]:
    return {one.data_type for one in onnx.load(path).graph.initializer}
