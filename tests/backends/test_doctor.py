from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trtq import backends
from trtq.backends import BUILDERS
from trtq.backends.doctor import MODES, NEEDS, Diagnosis, diagnose, find_program, judge
from trtq.backends.probe import Probe
from trtq.errors import ConfigError, MissingBackendError
from trtq.machine import Gpu, Jetson, Machine
from trtq.machine.jetson import JETPACKS

NVDLA = "ImportError: /usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so: undefined symbol: nvdlaLogger"
NO_CUDA = "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"
ORIN = Gpu("Orin", "sm87")
ALL_MODULES = {"torch", "torchvision", "pytorch_quantization", "safetensors", "scipy", "cuda.bindings"}
BARE = Machine("CPU", 4, (), 8192, "Linux", "3.10.12", (), (), None, None, (), None)
PROGRAMS = {"dot": "/usr/bin/dot", "trtexec": "/usr/src/tensorrt/bin/trtexec"}


def jetson(l4t: str, python: str = "3.10.12") -> Machine:
    board = Jetson("NVIDIA Jetson AGX Orin Developer Kit", l4t, None, "MAXN", ORIN)
    return replace(BARE, python=python, gpus=(ORIN,), jetson=board)


def works(found: Diagnosis, backend: str) -> dict[str, bool]:
    return {one.does: one.works for one in found.abilities if one.backend == backend}


@pytest.fixture(autouse=True)
def _every_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtq.backends.doctor.BUILDERS", dict.fromkeys(NEEDS, ""))


def test_a_bare_machine_says_what_to_install_for_everything() -> None:
    found = judge(BARE, {}, set(), {}, device=False)
    assert [one.does for one in found.abilities if one.works] == ["lint, unify, diff, layers"]
    assert all(not part.works and part.install for part in found.parts.values())
    for one in found.to_json()["abilities"]:
        assert bool(one["install"]) == (not one["works"])


def test_a_workstation_with_all_of_it() -> None:
    here = replace(BARE, gpus=(Gpu("NVIDIA L4", "sm89", 23034),), driver="550.54.14")
    probes = {
        "tensorrt": Probe("10.3.0", calibrators=True),
        "tensorrt_rtx": Probe("1.7.1.116"),
        "onnxruntime": Probe("1.31.1", providers=("CUDAExecutionProvider", "CPUExecutionProvider")),
    }
    found = judge(here, probes, ALL_MODULES, PROGRAMS, device=True)
    assert all(one.works for one in found.abilities)
    assert found.parts["onnxruntime"].found == "1.31.1 (CUDA, CPU)"
    assert "implicit ptq" in works(found, "trt") and "implicit ptq" not in works(found, "rtx")
    found.require(["trt", "rtx", "ort", "trtexec", "gpu", "dot"])


def test_without_a_gpu_rtx_builds_and_does_not_run() -> None:
    found = judge(BARE, {"tensorrt_rtx": Probe("1.7.1.116")}, ALL_MODULES, {}, device=False)
    assert works(found, "rtx") == {
        "fp32": True, "fp16": True, "explicit ptq": True, "qat": True, "run, bench": False,
    }  # fmt: skip
    assert not any(works(found, "trt").values())


def test_tensorrt_11_has_no_implicit_mode() -> None:
    here = replace(BARE, gpus=(Gpu("NVIDIA L4"),), driver="550.54.14")
    found = judge(here, {"tensorrt": Probe("11.4.0.106")}, ALL_MODULES, {}, device=True)
    assert not works(found, "trt").pop("implicit ptq")
    (implicit,) = [one for one in found.abilities if (one.backend, one.does) == ("trt", "implicit ptq")]
    assert implicit.missing == ("calibrators",)
    assert "trtq ptq" in found.parts["calibrators"].install


def test_a_gpu_that_the_container_does_not_see() -> None:
    here = replace(BARE, gpus=(Gpu("NVIDIA L4"),), driver="550.54.14")
    found = judge(here, {"tensorrt": Probe(error=NO_CUDA)}, set(), {}, device=False)
    assert "cannot be reached" in found.parts["gpu"].problem
    assert "--gpus all" in found.parts["gpu"].install
    assert "--gpus all" in found.parts["tensorrt"].install
    inside = judge(jetson("36.4.3"), {"tensorrt": Probe(error=NO_CUDA)}, set(), {}, device=False)
    assert "--runtime nvidia" in inside.parts["tensorrt"].install


@pytest.mark.parametrize("release", JETPACKS, ids=lambda one: one.jetpack)
def test_a_jetson_is_told_the_image_of_its_release(release: object) -> None:
    l4t, image, python = (getattr(release, name) for name in ("l4t", "image", "python"))
    absent = judge(jetson(l4t, f"{python}.1"), {}, set(), {}, device=True).parts["tensorrt"]
    assert "--system-site-packages" in absent.install
    assert (image or "no l4t-tensorrt image is known") in absent.install
    mixed = judge(jetson(l4t), {"tensorrt": Probe(error=NVDLA)}, set(), {}, device=True).parts["tensorrt"]
    assert "different L4T" in mixed.problem
    assert (image or "no l4t-tensorrt image is known") in mixed.install


def test_a_jetson_with_another_python_than_jetpack_s() -> None:
    part = judge(jetson("35.4.1", "3.11.4"), {}, set(), {}, device=True).parts["tensorrt"]
    assert "for Python 3.8, and this is 3.11.4" in part.install
    assert "--backend trtexec" in part.install
    assert "python3-libnvinfer" in judge(jetson("99.1.0"), {}, set(), {}, device=True).parts["tensorrt"].install
    assert "Jetson" in judge(jetson("36.4.3"), {}, set(), {}, device=True).parts["tensorrt-rtx"].problem


@pytest.mark.parametrize("name", BUILDERS)
def test_every_back_end_is_listed_with_what_it_does(name: str) -> None:
    assert set(NEEDS[name]) <= set(MODES) and {"qat", "run, bench"} <= set(NEEDS[name])
    if name in ("rtx", "ort", "ort-native"):  # the others' depends on the TensorRT that is here
        assert ("implicit ptq" in NEEDS[name]) == backends.builder(name).HAS_IMPLICIT_PTQ


def test_trtexec_is_found_where_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("trtq.backends.doctor.TRTEXEC_FOLDERS", (str(tmp_path / "bin"),))
    assert find_program("trtexec") is None
    for folder in ("bin", ".", "own"):  # each comes before the one tried last
        place = tmp_path / folder / "trtexec"
        place.parent.mkdir(exist_ok=True)
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
        if folder == "own":
            monkeypatch.setenv("TRTEXEC", str(place))
        assert Path(find_program("trtexec") or "").samefile(place)
    monkeypatch.setenv("TRTEXEC", str(tmp_path / "nowhere"))
    assert find_program("trtexec") is None
    assert find_program("dot") is None


def test_what_is_required_is_said_to_be_missing() -> None:
    found = judge(BARE, {}, set(), {}, device=False)
    with pytest.raises(MissingBackendError, match="TensorRT is not installed") as caught:
        found.require(["trt"])
    assert caught.value.exit_code == 3
    with pytest.raises(ConfigError, match="did you mean 'trtexec'"):
        found.require(["trtexe"])


def test_this_machine_is_judged_without_importing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = diagnose()
    assert found.parts["onnxruntime"].works == ("onnxruntime" in found.to_json()["machine"]["packages"])
    script = (
        "import sys; from trtq.backends.doctor import diagnose; diagnose(); "
        "print([name for name in ('torch', 'onnxruntime', 'tensorrt_rtx', 'tensorrt') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
