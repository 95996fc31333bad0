"""`trtq build MODEL.onnx`: nothing built twice, nothing half-written, the same bytes however it was disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.hostile_networks import network, plain, quantized, save
from tests.conftest import ROOT, check_trtq, run_trtq, sentences
from trtq import qdq
from trtq.backends import BUILDERS, BuildOptions, BuildSpec, manifest, rtx
from trtq.errors import BuildError, ConfigError, MissingBackendError, ModelError
from trtq.machine import Gpu, machine
from trtq.pipeline import engine, preflight
from trtq.pipeline.from_onnx import Request, build_onnx, choose
from trtq.rules import lint

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")

PLAN = "engine.rtx.plan"
# Starts a build that says every step, so that it can be ended at a known one.
BUILD = (
    "import sys; from pathlib import Path; from trtq.pipeline.from_onnx import Request, build_onnx\n"
    "say = lambda *step: print(*step, flush=True)\n"
    "build_onnx(Request(Path(sys.argv[1]), Path(sys.argv[2]), 'rtx'), progress=say, waiting=lambda: say('waiting'))\n"
    "say('done')"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "net.onnx", quantized())


@pytest.fixture
def undisturbed(model: Path, tmp_path: Path) -> bytes:
    build_onnx(Request(model, tmp_path / "alone", "rtx"))
    return (tmp_path / "alone" / PLAN).read_bytes()


def started(model: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(model), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})


def litter(folder: Path) -> list[str]:
    return [file.name for file in folder.glob(".*") if file.name != ".lock"]


def test_a_second_build_is_a_no_op(model: Path, tmp_path: Path) -> None:
    request = Request(model, tmp_path / "out", "rtx")
    first = build_onnx(request).engines[0]
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in (tmp_path / "out").iterdir()}
    second = build_onnx(request).engines[0]
    assert (first["built"], second["built"]) == (True, False)
    assert {**first, "built": False} == second
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in (tmp_path / "out").iterdir()} == before
    found = manifest.read(tmp_path / "out" / PLAN)
    assert found.identity.targets == ("sm86",)
    assert found.identity.mode == "ptq"
    assert (found.peak_memory_mib or 0) > 50


@pytest.mark.parametrize(
    "change",
    [
        lambda r: save(r.model, quantized(0.06)) and r,
        lambda r: replace(r, targets=("sm89",)),
        lambda r: replace(r, mode="qat"),
        lambda r: (r.folder / PLAN).write_bytes(b"cut") and r,
        lambda r: manifest.path_of(r.folder / PLAN).write_text("{") and r,
    ],
    ids=["network", "target", "mode", "plan", "manifest"],
)
def test_what_differs_is_built_again(model: Path, tmp_path: Path, change: Callable[[Request], Request]) -> None:
    request = Request(model, tmp_path / "out", "rtx")
    build_onnx(request)
    request = change(request)
    assert build_onnx(request).engines[0]["built"]
    assert not build_onnx(replace(request, options=BuildOptions(timeout_s=9))).engines[0]["built"]


def test_two_builds_at_once_do_not_disturb_each_other(model: Path, tmp_path: Path, undisturbed: bytes) -> None:
    both = [started(model, tmp_path / "out") for _ in range(2)]
    said = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert (tmp_path / "out" / PLAN).read_bytes() == undisturbed
    assert not build_onnx(Request(model, tmp_path / "out", "rtx")).engines[0]["built"]
    # One of them had nothing left to do: no builder spoke to it.
    assert sum("Building engine" in one for one in said) == 1
    assert not litter(tmp_path / "out")


@pytest.mark.parametrize("after", ["Building engine 0", "Building engine 3", "Building engine from subgraph", "done"])
def test_killed_at_any_moment_a_second_run_gives_the_same_bytes(
    model: Path, tmp_path: Path, undisturbed: bytes, after: str
) -> None:
    process = started(model, tmp_path / "out")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(after):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Whatever is there is whole.
    plan = tmp_path / "out" / PLAN
    assert not plan.is_file() or plan.read_bytes() == undisturbed
    build_onnx(Request(model, tmp_path / "out", "rtx"))
    assert plan.read_bytes() == undisturbed
    assert not litter(tmp_path / "out")


@pytest.mark.parametrize("last", ["plan", "layers", "manifest"])
def test_killed_between_the_plan_and_its_manifest(model: Path, tmp_path: Path, undisturbed: bytes, last: str) -> None:
    """The files are written in this order: each prefix of them is what a kill can leave."""
    shutil.copytree(tmp_path / "alone", tmp_path / "out")
    plan = tmp_path / "out" / PLAN
    if last != "manifest":
        manifest.path_of(plan).unlink()
    if last == "plan":
        (tmp_path / "out" / "layers.json").unlink()
    (tmp_path / "out" / f".{PLAN}.abcd1234.plan").write_bytes(b"half a plan")
    built = build_onnx(Request(model, tmp_path / "out", "rtx")).engines[0]["built"]
    assert built == (last != "manifest")
    assert plan.read_bytes() == undisturbed
    assert (tmp_path / "out" / "layers.json").is_file()
    assert bool(litter(tmp_path / "out")) == (last == "manifest")


def test_an_interrupt_leaves_no_engine(tmp_path: Path) -> None:
    names = ["x", *(f"t{index}" for index in range(1, 1500)), "y"]
    nodes = [onnx.helper.make_node(("Relu", "Sigmoid")[i % 2], [names[i]], [names[i + 1]]) for i in range(1500)]
    process = started(save(tmp_path / "deep.onnx", network(nodes)), tmp_path / "out")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"TQ302 uint8.*--fix"):
        build_onnx(Request(save(tmp_path / "net.onnx", quantized(zero_type=np.uint8)), tmp_path / "out", "rtx"))
    assert not (tmp_path / "out").exists()


def test_a_float_file_in_each_mode(tmp_path: Path) -> None:
    model = save(tmp_path / "net.onnx", plain())
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(4, 8, 16, 16)).astype(np.float32))
    request = Request(model, tmp_path / "out", "rtx")
    shares = []
    for mode in ("fp32", "fp16", "ptq"):
        images = tmp_path / "images.npy" if mode == "ptq" else None
        asked = replace(request, mode=mode, folder=tmp_path / mode, calibration=images)
        assert build_onnx(asked).engines[0]["built"]
        assert not build_onnx(asked).engines[0]["built"]
        shares.append(_layers(tmp_path / mode)["signals"]["int8_share"])
    assert shares == [0, 0, 1]
    assert "float16" in json.dumps(_layers(tmp_path / "fp16"))
    with pytest.raises(ConfigError, match="--calibration"):
        build_onnx(replace(request, mode="ptq"))
    with pytest.raises(ConfigError, match="no Q/DQ nodes"):
        build_onnx(replace(request, mode="qat"))
    with pytest.raises(ConfigError, match="no fp32 network; give the float network"):
        build_onnx(replace(request, model=save(tmp_path / "q.onnx", quantized()), mode="fp32"))


def test_what_is_not_quantized_in_fp16(model: Path, tmp_path: Path) -> None:
    assert build_onnx(Request(model, tmp_path / "out", "rtx", half=True)).engines[0]["built"]
    graph = _layers(tmp_path / "out")
    assert graph["signals"]["int8_share"] == 1
    assert "float16" in json.dumps(graph)


def test_other_images_are_another_engine(tmp_path: Path) -> None:
    model, images = save(tmp_path / "net.onnx", plain()), tmp_path / "images.npy"
    request = Request(model, tmp_path / "out", "rtx", mode="ptq", calibration=images)
    plans = []
    for scale in (1, 3):
        np.save(images, scale * np.random.default_rng(0).normal(size=(4, 8, 16, 16)).astype(np.float32))
        assert build_onnx(request).engines[0]["built"]
        plans.append((tmp_path / "out" / PLAN).read_bytes())
    assert plans[0] != plans[1]


def test_auto_says_which_and_why(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    done = run_trtq("build", save(tmp_path / "net.onnx", plain()), "--json")
    document = json.loads(done.stdout)
    assert [one["backend"] for one in document["engines"]] == ["rtx", "ort"]
    assert "TensorRT-RTX builds ahead of time" in document["because"]
    assert document["because"] in done.stderr
    assert (tmp_path / "net" / "engine.ort.onnx.json").is_file()


def test_auto_chooses_by_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(machine(), gpus=(), tensorrt=(), packages=())
    with pytest.raises(MissingBackendError, match=r"pip install 'trtq\[rtx,ort\]'"):
        choose(bare)
    assert choose(replace(bare, packages=(("onnxruntime", "1.2"),)))[0] == ("ort",)
    monkeypatch.setitem(BUILDERS, "trt", "trtq.backends.trt")
    here = replace(bare, gpus=(Gpu("NVIDIA RTX A4000", "sm86"),), tensorrt=(("tensorrt", "10.3.0"),))
    assert choose(here)[0] == ("trt",)
    assert choose(replace(here, gpus=(), packages=(("onnxruntime", "1.2"),)))[0] == ("ort",)


def test_an_engine_that_is_tuned_on_a_gpu_is_of_that_gpu(model: Path) -> None:
    here = replace(machine(), gpus=(Gpu("NVIDIA RTX A4000", "sm86"), Gpu("NVIDIA H100", "sm90")))
    tuned = SimpleNamespace(NAME="trt", BUILDS_WITHOUT_GPU=False, version=lambda: "10.3.0")
    found = engine.identify(tuned, BuildSpec(model, ()), here=here)
    assert (found.device, found.targets) == ("NVIDIA RTX A4000", ("sm86",))
    ahead = engine.identify(rtx, BuildSpec(model, ("sm80",)), here=here)
    assert (ahead.device, ahead.targets) == (None, ("sm80",))


def test_what_explains_a_failure_is_added_to_it(tmp_path: Path) -> None:
    deep = [f"t{index}" for index in range(2600)]
    nodes = [onnx.helper.make_node("Relu", [a], [b]) for a, b in zip(["x", *deep], [*deep, "y"], strict=True)]
    model = save(tmp_path / "deep.onnx", network(nodes))
    with pytest.raises(BuildError, match=r"longer than 0\.2 s.*may explain it: .*2601 operators.*\[TQ405 too-deep\]$"):
        build_onnx(Request(model, tmp_path / "out", "rtx", options=BuildOptions(timeout_s=0.2)))


def test_mending_leaves_nothing_that_is_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "net.onnx", quantized(zero=128, zero_type=np.uint8, bias=True))
    build_onnx(Request(model, tmp_path / "out", "rtx", fix=True))
    mended = qdq.load(tmp_path / "out" / "net.mended.onnx")
    assert not lint(mended, select=preflight.REFUSED)
    assert manifest.read(tmp_path / "out" / PLAN).identity.options["fix"] is True
    assert rtx.PLAN_NAME == PLAN


def test_the_command_line_says_what_it_built(model: Path, tmp_path: Path) -> None:
    arguments = ("build", model, "--backend", "rtx", "-o", tmp_path / "out", "--target", "sm86", "--target", "sm89")
    assert "sm86, sm89, built in" in check_trtq(*arguments)
    assert "is up to date" in check_trtq(*arguments)
    limited = run_trtq("build", model, "--backend", "rtx", "-o", tmp_path / "other", "--timeout", "0.05")
    assert limited.returncode == 4
    assert "longer than 0.05 s" in sentences(limited.stderr)[0]


def _layers(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "layers.json").read_text())
    return document


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_implicit_ptq_without_tensorrt_says_that_it_is_missing(tmp_path: Path) -> None:
    model = save(tmp_path / "net.onnx", plain())
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(MissingBackendError, match="TensorRT's Python module is not installed"):
        build_onnx(Request(model, tmp_path / "out", "trt", mode="ptq", implicit=True, calibration=images))
