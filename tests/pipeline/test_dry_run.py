"""Plans for TensorRTs that are not here, from recipes and ONNX files, and recipes that a version does not take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.hostile_networks import plain, quantized, save
from tests.conftest import check_trtq, run_trtq, write_recipe
from trtq.backends import BuildOptions, BuildSpec
from trtq.backends.dialects import DIALECTS
from trtq.config import DataSpec, EngineSpec, Mode, ModelSpec, Recipe, load_recipe
from trtq.errors import ConfigError
from trtq.pipeline import dry_run, engine
from trtq.pipeline.build import build_recipe
from trtq.pipeline.dry_run import check_recipe, chosen, dry_run_onnx, dry_run_recipe

MODES: tuple[Mode, ...] = ("fp32", "fp16", "ptq", "qat")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path))


def with_engine(recipe: Recipe, spec: EngineSpec) -> Recipe:
    return replace(recipe, engine=spec)


def test_one_recipe_on_six_tensorrts_in_four_modes(recipe: Recipe) -> None:
    found = {(one["tensorrt"], one["mode"]): one["refused"] for one in dry_run_recipe(recipe, MODES, chosen(()))}
    assert len(found) == 24
    # Its weights are int8, which 8.x does not take; everything else goes everywhere.
    refused = {key for key, reason in found.items() if reason is not None}
    assert refused == {(version, mode) for version in ("trt8.5", "trt8.6") for mode in ("ptq", "qat")}


def test_a_recipe_for_8_x(recipe: Recipe) -> None:
    ready = with_engine(recipe, EngineSpec(weights="float", opset=17))
    assert not any(one["refused"] for one in dry_run_recipe(ready, MODES, chosen(())))
    with pytest.raises(ConfigError, match=r'qat cannot go to TensorRT 8\.6: .*engine\.weights = "float"'):
        check_recipe(recipe, DIALECTS["trt8.6"], "qat")
    with pytest.raises(ConfigError, match=r"it is opset 19.*engine\.opset"):
        check_recipe(with_engine(ready, replace(ready.engine, opset=19)), DIALECTS["trt8.6"], "fp32")


def test_implicit_ptq_is_of_the_float_network(recipe: Recipe) -> None:
    asked = with_engine(recipe, EngineSpec(ptq="implicit"))
    implicit, explicit = (check_recipe(asked, DIALECTS[name], "ptq") for name in ("trt10.16", "trt11.4"))
    assert (implicit.quantization, implicit.spec.onnx.parent.name) == ("implicit", "fp32")
    assert (explicit.quantization, explicit.spec.onnx.parent.name) == ("explicit", "ptq")


def test_options_of_a_recipe_reach_the_plan(recipe: Recipe) -> None:
    asked = with_engine(recipe, EngineSpec(workspace_mib=64, level=4, timing_cache="t.cache", strongly_typed=True))
    told = dry_run_recipe(asked, ["qat"], chosen(["10.3"]))[0]
    assert "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 67108864)" in told["calls"]
    assert "config.builder_optimization_level = 4" in told["calls"]
    assert f"--timingCacheFile={recipe.path.parent / 't.cache'}" in told["build_command"]
    assert "--stronglyTyped" in told["build_command"]
    assert json.dumps(engine.options_json(engine.engine_options(asked)))


def test_a_dynamic_batch_and_a_dla_core_reach_the_plan(recipe: Recipe) -> None:
    size, dialect = recipe.data.image_size, chosen(["10.3"])
    told = dry_run_recipe(with_engine(recipe, EngineSpec(batch=8, dynamic_batch=(1, 16))), ["fp16"], dialect)[0]
    for word, batch in (("min", 1), ("opt", 8), ("max", 16)):
        assert f"--{word}Shapes=images:{batch}x3x{size}x{size}" in told["build_command"]
    told = dry_run_recipe(with_engine(recipe, EngineSpec(dla_core=1)), ["fp16"], dialect)[0]
    assert "--useDLACore=1" in told["build_command"] and "--allowGPUFallback" in told["build_command"]
    told = dry_run_recipe(with_engine(recipe, EngineSpec(dynamic_batch=(1, 2), dla_core=1)), ["fp16"], dialect)[0]
    assert "DLA takes fixed shapes alone" in told["refused"]


def test_limits_change_nothing_of_what_is_made(recipe: Recipe) -> None:
    limited = engine.engine_options(with_engine(recipe, EngineSpec(timeout_s=9.0, memory_limit_mib=512)))
    assert (limited.timeout_s, limited.memory_limit_mib) == (9.0, 512)
    assert engine.options_json(limited) == engine.options_json(BuildOptions())


def test_a_recipe_is_checked_before_anything_is_made(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"ptq cannot go to TensorRT 8\.5"):
        build_recipe(
            with_engine(recipe, EngineSpec(tensorrt=("8.5",))), ["ptq"], reporter=lambda label: lambda done, total: None
        )
    assert not recipe.folder.exists()
    with pytest.raises(ConfigError, match="is not known"):
        dry_run.check_recipe_backends(with_engine(recipe, EngineSpec(tensorrt=("8.9",))), ["fp32"])
    with pytest.raises(ConfigError, match=r"trt and rtx both write layers\.json"):
        dry_run.check_recipe_backends(with_engine(recipe, EngineSpec(backends=("trt", "rtx"))), ["fp32"])


def test_new_keys_are_optional() -> None:
    bare = Recipe(Path("x.toml"), ModelSpec("yolov7-tiny"), DataSpec("digits", 64), engine=EngineSpec())
    assert engine.engine_options(bare) == BuildOptions()


def test_command_line(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", quantized())
    text = check_trtq("build", path, "--dry-run", "--tensorrt", "10.3", "--tensorrt", "rtx", "--level", "3")
    assert "# TensorRT 10.3, qat" in text and "$ trtexec --onnx=" in text and "--builderOptimizationLevel=3" in text
    assert "# TensorRT-RTX, qat" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx"]
    (told,) = json.loads(check_trtq("build", path, "--dry-run", "--tensorrt", "11.4", "--json"))
    assert told["refused"] is None and told["bench_command"].startswith("trtexec --loadEngine=")


def test_copies_that_a_build_makes_first_are_named(tmp_path: Path) -> None:
    path, folder = save(tmp_path / "net.onnx", plain()), tmp_path / "out"

    def told(mode: Mode, version: str, *, batches: Path | None = None, cache: Path | None = None) -> Mapping[str, Any]:
        spec = BuildSpec(path, (), mode, calibration_batches=batches, calibration_cache=cache)
        return dry_run_onnx(spec, folder, chosen([version]))[0]

    assert told("fp16", "11.4")["build_command"].startswith(f"trtexec --onnx={folder / 'net.fp16.onnx'} ")
    assert told("fp16", "8.6")["build_command"].startswith(f"trtexec --onnx={path} ")
    assert told("ptq", "8.6")["onnx"]["weights"] == "float"
    assert f"--onnx={folder / 'net.ptq.onnx'}" in told("ptq", "11.4")["build_command"]
    implicit = told("ptq", "10.16", batches=tmp_path / "images")
    assert implicit["quantization"] == "implicit" and "no images" in implicit["no_command"]
    assert f"--calib={tmp_path / 'c'}" in told("ptq", "8.6", cache=tmp_path / "c")["build_command"]
    assert "no implicit PTQ" in told("ptq", "11.4", cache=tmp_path / "c")["refused"]
    assert not folder.exists()


def test_command_line_refuses_with_the_alternative(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", quantized())
    done = run_trtq("build", path, "--dry-run", "--tensorrt", "8.6", "--dla-core", "0", "--mode", "ptq")
    assert done.returncode == 2 and "trtq cache" in done.stdout
    done = run_trtq("build", path, "--tensorrt", "8.6")
    assert done.returncode == 2 and "--tensorrt is for --dry-run" in done.stderr
    done = run_trtq("build", path, "--backend", "rtx", "--mode", "ptq", "--implicit")
    assert done.returncode == 2 and "no implicit PTQ" in done.stderr
