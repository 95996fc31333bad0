"""The main job: stages run once, resume where they stopped, and give the same bytes however often they were killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import NAME, check_trtq, present, run_trtq, sentences, write_recipe
from trtq import files
from trtq.backends import manifest
from trtq.config import load_recipe
from trtq.layers.graph import load_layers
from trtq.pipeline.result import result_rows

ARTEFACTS = ("model.onnx", "engine.rtx.plan", "engine.ort.onnx", "layers.json", "accuracy.json")


def hashes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if is_artefact(path)}


def is_artefact(path: Path) -> bool:
    return path.suffix in (".onnx", ".plan", ".safetensors") or path.name in ("layers.json", "accuracy.json")


def copy(recipe: Path, folder: Path) -> Path:
    shutil.copy(recipe, folder)
    shutil.copytree(recipe.with_suffix(""), folder / recipe.stem)
    return folder / recipe.name


def test_every_mode_leaves_engines_layers_accuracy_and_a_manifest(built: Path) -> None:
    for mode in ("fp32", "fp16", "naive", "ptq", "qat"):
        folder = built.with_suffix("") / mode
        assert all((folder / name).stat().st_size for name in ARTEFACTS), mode
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["threads"] == 1
        assert manifest["machine"]["instruction_sets"]
        rtx = manifest["stages"]["build-rtx"]
        assert rtx["versions"]["tensorrt-rtx-cu12"] == rtx["facts"]["version"]
        assert load_layers(folder / "layers.json").origin == "compiled"
    assert (built.with_suffix("") / "report.html").is_file()


def test_unifying_removes_every_double_write_of_the_naive_placement(built: Path) -> None:
    rows = {row.mode: row for row in result_rows(load_recipe(built))}
    naive, ptq, qat, fp32 = (present(rows[mode].signals) for mode in ("naive", "ptq", "qat", "fp32"))
    assert naive.double_writes and naive.double_writes > 5
    assert ptq.double_writes == qat.double_writes == 0
    assert ptq.requantizes == qat.requantizes == 0
    assert present(ptq.float_writes) < present(naive.float_writes)
    assert ptq.int8_share == naive.int8_share
    assert fp32.int8_share == 0


def test_a_second_run_has_nothing_to_do(built: Path, tmp_path: Path) -> None:
    recipe = copy(built, tmp_path)
    before = hashes(tmp_path)
    output = check_trtq("build", recipe, "--mode", "fp16,ptq,qat")
    assert "all is up to date" in output
    assert hashes(tmp_path) == before


def test_a_lost_file_is_made_again_byte_for_byte_and_nothing_else(built: Path, tmp_path: Path) -> None:
    recipe = copy(built, tmp_path)
    before = hashes(tmp_path)
    (tmp_path / NAME / "ptq" / "engine.rtx.plan").unlink()
    output = json.loads(check_trtq("build", recipe, "--mode", "ptq", "--json"))
    assert output["stages_run"] == 1
    assert hashes(tmp_path) == before


def test_two_builds_at_once_of_one_recipe_do_not_disturb_each_other(built: Path, tmp_path: Path) -> None:
    recipe = copy(built, tmp_path)
    before = hashes(tmp_path)
    (tmp_path / NAME / "ptq" / "engine.rtx.plan").unlink()
    (tmp_path / NAME / "ptq" / ".engine.rtx.plan.abcd1234.plan").write_bytes(b"half a plan")
    command = [sys.executable, "-m", "trtq", "build", str(recipe), "--mode", "ptq", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [one.communicate(timeout=300) for one in both]
    assert [one.returncode for one in both] == [0, 0], answers
    assert sorted(json.loads(out)["stages_run"] for out, _ in answers) == [0, 1]
    assert hashes(tmp_path) == before


def test_each_engine_says_what_it_was_built_from(built: Path) -> None:
    for mode in ("fp32", "fp16", "naive", "ptq", "qat"):
        folder = built.with_suffix("") / mode
        for plan in ("engine.rtx.plan", "engine.ort.onnx"):
            found = manifest.read(folder / plan)
            assert manifest.is_current(folder / plan, found.identity)
            assert found.identity.inputs["onnx"] == files.sha256(folder / "model.onnx") == found.onnx_sha256
            assert found.identity.inputs["recipe"] == files.sha256(built)
            assert found.identity.mode == ("ptq" if mode == "naive" else mode)


def test_a_changed_option_makes_only_what_depends_on_it_stale(built: Path, tmp_path: Path) -> None:
    recipe = copy(built, tmp_path)
    recipe.write_text(recipe.read_text().replace("iterations = 2\n", "iterations = 3\n", 1))
    done = run_trtq("build", recipe, "--mode", "fp16,ptq,qat")
    assert done.returncode == 0, done.stderr
    ran = [line.split("] ")[1] for line in done.stderr.splitlines() if line.startswith("[")]
    assert ran[0] == "qat finetune"
    assert all(step.startswith("qat") for step in ran)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_bytes_of_an_undisturbed_one(built: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    kill_after = ["fp32 build-rtx", "ptq export", "qat finetune"]
    for step in kill_after:
        _run_until(recipe, step, signal.SIGKILL)
    check_trtq("build", recipe, "--mode", "fp16,ptq,qat")
    assert hashes(tmp_path / NAME) == hashes(built.with_suffix(""))


def test_an_interrupt_exits_130_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    code, said = _run_until(recipe, "fp32 eval", signal.SIGINT)
    assert code == 130
    assert sentences(said)[-1] == "trtq: interrupted; run the same command again to go on"
    assert "Traceback" not in said
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]


def _run_until(recipe: Path, step: str, stop: signal.Signals) -> tuple[int, str]:
    """Start a build, send `stop` to it and its children once it says `step`; return its exit code and words."""
    command = [sys.executable, "-m", "trtq", "build", str(recipe), "--mode", "fp16,ptq,qat"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.rstrip().endswith(step):
            time.sleep(0.2)
            os.killpg(process.pid, stop)
            break
    said += process.stderr.read()
    return process.wait(60), said
