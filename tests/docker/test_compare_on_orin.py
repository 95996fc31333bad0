"""The comparison script: run for real with ONNX Runtime; its clocks with stand-ins for the two programs of a Jetson."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import NAME, ROOT, check_trtq, write_recipe

SCRIPT = ROOT / "docker" / "compare-on-orin.sh"
needs_onnxruntime = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed")
QUICK = ("--", "--duration", "0.2", "--warm-up", "20")
# They tell what they are asked, and keep a state that a test can look at; the script cannot tell them from NVIDIA's.
JETSON_CLOCKS = """#!/bin/sh
echo "jetson_clocks $*" >>"$CALLS"
case $1 in
    --show) echo "GPU MinFreq=$(cat "$STATE")" ;;
    --store) cp "$STATE" "$2" ;;
    --restore) cp "$2" "$STATE" ;;
    "") echo 1300500000 >"$STATE" ;;
esac
"""
NVPMODEL = """#!/bin/sh
echo "nvpmodel $*" >>"$CALLS"
case $1 in
    -q) printf 'NV Power Mode: MODE_30W\\n2\\n' ;;
    -m) [ "$2" != 9 ] ;;
esac
"""
UNLOCKED = "306000000"


def compare(*arguments: str | Path, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env=variables(path, environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def variables(path: str, environment: dict[str, str]) -> dict[str, str]:
    folders = [path, str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": ":".join(filter(None, folders)), "OMP_NUM_THREADS": "1", **environment}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A recipe whose folder holds what the script asks for, as empty files: enough for what it refuses and plans."""
    recipe = write_recipe(tmp_path)
    for mode in ("fp16", "ptq", "qat"):
        (tmp_path / NAME / mode).mkdir(parents=True)
        (tmp_path / NAME / mode / "model.onnx").touch()
    return recipe


@pytest.fixture
def jetson(tmp_path: Path) -> dict[str, str]:
    """A folder for PATH with a Jetson's two programs, and where they keep what happened."""
    folder = tmp_path / "jetson"
    folder.mkdir()
    for name, text in (("jetson_clocks", JETSON_CLOCKS), ("nvpmodel", NVPMODEL), ("sudo", '#!/bin/sh\nexec "$@"\n')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (tmp_path / "state").write_text(UNLOCKED + "\n")
    return {"path": str(folder), "CALLS": str(tmp_path / "calls"), "STATE": str(tmp_path / "state")}


@pytest.mark.slow
def test_one_folder_comes_back_and_the_report_opens_it(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.parent, tmp_path / "engines")
    recipe, output = tmp_path / "engines" / built.name, tmp_path / "comparison"
    done = compare(recipe, "--backend", "ort", "--output", output, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no clocks to lock" in done.stdout and (output / "machine/clocks.txt").read_text() == "not locked\n"
    assert not output.with_name("comparison.partial").exists()
    (run,) = (output / NAME / "bench").glob("*.json")
    assert [one["name"] for one in json.loads(run.read_text())["results"]] == ["fp16", "ptq", "qat"]
    for mode in ("fp16", "ptq", "qat"):
        assert (output / NAME / mode / "engine.ort.onnx").is_file()
        left = [*(output / NAME / mode).glob("engine.rtx.*"), *(output / NAME / mode).glob("layers.json")]
        assert not left, "engines of the workstation stay there, and so do their layers"
        assert json.loads((output / NAME / mode / "manifest.json").read_text())["stages"].keys() >= {"eval"}
    assert json.loads((output / NAME / "diff-ptq-qat.json").read_text())["differences"] is not None
    shutil.move(output, tmp_path / "elsewhere")
    page = Path(check_trtq("report", tmp_path / "elsewhere" / built.name).strip())
    assert page == tmp_path / "elsewhere" / NAME / "report.html"
    assert "images a second" in page.read_text() and "imes of ONNX Runtime on this processor" in page.read_text()


def test_a_dry_run_prints_every_step_and_does_none(exported: Path) -> None:
    before = sorted(exported.parent.rglob("*"))
    done = compare(
        "--dry-run", exported, "--image", "trtq:orin", "--output", exported.parent / "x", path=docker(exported)
    )
    assert done.returncode == 0, done.stderr
    for command in ("doctor --require trt", f"build {NAME}/qat/model.onnx --mode qat", f"bench {NAME}.toml", "report"):
        assert f"trtq:orin {command}" in done.stdout
    assert "--user" in done.stdout and "--privileged" not in done.stdout
    (exported.parent / "docker" / "docker").unlink()
    (exported.parent / "docker").rmdir()
    assert sorted(exported.parent.rglob("*")) == before


def docker(exported: Path) -> str:
    """A name on PATH: a dry run only looks whether it is there."""
    folder = exported.parent / "docker"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\nexit 1\n")
    (folder / "docker").chmod(0o755)
    return str(folder)


def test_trtexec_reads_the_layers_where_trtq_cannot(exported: Path) -> None:
    done = compare("--dry-run", exported, "--backend", "trtexec", "--output", exported.parent / "x")
    plan = f"{NAME}/qat/engine.trtexec.plan"
    assert f"trtexec --loadEngine={plan} --exportLayerInfo={plan}.layers.json" in done.stdout
    assert f"layers {plan}.layers.json --profile {plan}.profile.json --output {NAME}/qat/layers.json" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a recipe"),
        (["nowhere.toml"], "nowhere.toml: no such recipe"),
        (["RECIPE", "--mode", "fp16,int4"], "int4/model.onnx is not there: on the workstation run trtq build"),
        (["RECIPE", "--mode", "fp16;reboot"], "separated by commas"),
        (["RECIPE", "--colour", "red"], "--colour is no option"),
        (["RECIPE", "--output"], "--output wants a value"),
        (["RECIPE", "RECIPE"], "one recipe at a time"),
        (["RECIPE", "--output", "."], "is there already"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(exported: Path, arguments: list[str], sentence: str) -> None:
    done = compare(*(str(exported) if one == "RECIPE" else one for one in arguments))
    assert done.returncode == 2 and sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not done.stdout


@needs_onnxruntime
def test_clocks_are_restored_after_a_failure(exported: Path, jetson: dict[str, str]) -> None:
    """The ONNX files are empty: the first build fails."""
    done = compare(exported, "--backend", "ort", "--power-mode", "0", "--output", exported.parent / "x", **jetson)
    assert done.returncode and f"trtq: {NAME}/fp16/model.onnx" in done.stderr, done.stdout + done.stderr
    partial = exported.parent / "x.partial"
    assert f"what is there is in {partial}" in done.stderr
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    assert "1300500000" in (partial / "machine/clocks-locked.txt").read_text()
    calls = Path(jetson["CALLS"]).read_text().splitlines()
    store = f"{partial}/machine/clocks.store"
    assert [one for one in calls if "show" not in one] == [
        "nvpmodel -q",
        "nvpmodel -m 0",
        f"jetson_clocks --store {store}",
        "jetson_clocks ",
        f"jetson_clocks --restore {store}",
        "nvpmodel -m 2",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_clocks_are_restored_after_a_signal(
    exported: Path, jetson: dict[str, str], number: signal.Signals, code: int
) -> None:
    """While `trtq` works, here a stand-in that never ends; as from a terminal, the whole group hears the signal."""
    folder = Path(jetson["path"])
    (folder / "trtq").write_text('#!/bin/sh\n[ "$1" != build ] || { echo building; exec sleep 600; }\n')
    (folder / "trtq").chmod(0o755)
    environment = variables(jetson["path"], {name: jetson[name] for name in ("CALLS", "STATE")})
    command = [SCRIPT, exported, "--output", exported.parent / "x"]
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A run that ignores the signal, as under nohup, would hand that down, and a shell cannot undo it.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert child.stdout is not None
    while "building" not in child.stdout.readline():
        pass
    assert Path(jetson["STATE"]).read_text().strip() == "1300500000"
    os.killpg(child.pid, number)
    started = time.monotonic()
    assert child.wait(timeout=30) == code
    assert time.monotonic() - started < 20
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


@needs_onnxruntime
def test_a_power_mode_that_wants_a_reboot_is_refused(exported: Path, jetson: dict[str, str]) -> None:
    done = compare(exported, "--backend", "ort", "--power-mode", "9", "--output", exported.parent / "x", **jetson)
    assert done.returncode == 2 and "without a reboot" in done.stderr
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    assert "jetson_clocks \n" not in Path(jetson["CALLS"]).read_text(), "nothing was locked"
