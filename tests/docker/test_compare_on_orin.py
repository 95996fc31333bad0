"""The comparison script: run for real with ONNX Runtime; its clocks with stand-ins for the two programs of a Jetson."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
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
SUDO = '#!/bin/sh\n[ "$1" != -n ] || shift\nexec "$@"\n'
# As on a Jetson, where nobody runs this as root: so that sudo is called, and kept awake.
NOT_ROOT = "#!/bin/sh\necho 1000\n"
UNLOCKED = "306000000"
LOCKED = "1300500000"


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
    for name, text in (("jetson_clocks", JETSON_CLOCKS), ("nvpmodel", NVPMODEL), ("sudo", SUDO), ("id", NOT_ROOT)):
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
    assert "--user" in done.stdout and "--group-add video" in done.stdout and "--privileged" not in done.stdout
    (exported.parent / "docker" / "docker").unlink()
    (exported.parent / "docker").rmdir()
    assert sorted(exported.parent.rglob("*")) == before


def test_the_container_gets_the_groups_of_the_gpu_s_device_files(exported: Path, tmp_path: Path) -> None:
    """/dev/null stands for a device; root's group and video, which is asked for by name, are none to add."""
    text = SCRIPT.read_text()
    start, end = text.index("device_groups() {"), text.index("gather() {")
    for number, more in ((104, " --group-add 104"), (44, ""), (0, "")):
        body = text[start:end].replace("/dev/nvmap", "/dev/null").replace("/dev/nvhost-gpu", "/dev/zero")
        script = f'stat() {{ echo {number}; }}\n{body}\ndevice_groups; echo "${{groups[*]}}"'
        done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"--group-add video{more}"


def test_the_engines_are_built_of_what_the_recipe_casts(exported: Path) -> None:
    """As in a build of the recipe: FP16 beside INT8, and never for a mode that is a float network itself."""
    for mode in ("fp16", "qat"):
        (exported.parent / NAME / mode / "model.fp16.onnx").touch()
    done = compare("--dry-run", exported, "--mode", "qat,fp16", "--output", exported.parent / "x")
    assert f"build {NAME}/qat/model.fp16.onnx --mode qat" in done.stdout
    assert f"build {NAME}/fp16/model.onnx --mode fp16" in done.stdout
    assert "diff" not in done.stdout
    both = compare("--dry-run", exported, "--mode", "qat,ptq", "--output", exported.parent / "x")
    assert f"diff {NAME}/ptq {NAME}/qat" in both.stdout, "in whatever order the modes are named"


def test_a_folder_may_be_named_with_a_slash_behind_it(exported: Path, jetson: dict[str, str]) -> None:
    """As a shell completes it; the last step would move the folder into itself."""
    trtq(jetson, "exit 0")
    done = compare(exported, "--backend", "ort", "--output", f"{exported.parent}/brought-back//", **jetson)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (exported.parent / "brought-back" / "machine" / "clocks-after.txt").is_file()
    assert sorted(one.name for one in exported.parent.glob("brought-back*")) == ["brought-back"]


def test_a_second_ctrl_c_does_not_end_what_restores_the_clocks(exported: Path, jetson: dict[str, str]) -> None:
    slow = JETSON_CLOCKS.replace("--restore) cp", "--restore) echo restoring >&2; sleep 1; cp")
    (Path(jetson["path"]) / "jetson_clocks").write_text(slow)
    trtq(jetson, "exit 0")
    child = started(exported, jetson, signal.SIGINT, "--backend", "ort")
    assert child.stderr is not None
    while "restoring" not in child.stderr.readline():
        assert child.poll() is None, "it ended before it restored"
    assert Path(jetson["STATE"]).read_text().strip() == LOCKED
    os.killpg(child.pid, signal.SIGINT)
    child.wait(timeout=30)
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED


def test_clocks_are_restored_when_the_terminal_is_closed(exported: Path, jetson: dict[str, str]) -> None:
    """A real one, so that from then on nothing can be printed."""
    trtq(jetson, '[ "$1" != build ] || { echo building; exec sleep 600; }')
    master, slave = os.openpty()
    child = subprocess.Popen(
        [SCRIPT, exported, "--output", exported.parent / "x"],
        env=variables(jetson["path"], {name: jetson[name] for name in ("CALLS", "STATE")}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
    )
    os.close(slave)
    seen = b""
    while b"building" not in seen:
        seen += os.read(master, 4096)
    assert Path(jetson["STATE"]).read_text().strip() == LOCKED
    os.close(master)
    assert child.wait(timeout=30) == 129
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED


def test_a_signal_to_the_script_alone_ends_all_that_it_started(exported: Path, jetson: dict[str, str]) -> None:
    """As `timeout` or a service manager sends it."""
    trtq(jetson, '[ "$1" != build ] || { echo building; exec sleep 600; }')
    child = started(exported, jetson, signal.SIGTERM)
    assert child.stdout is not None
    while "building" not in child.stdout.readline():
        pass
    child.terminate()
    assert child.wait(timeout=30) == 143
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    assert not living(child.pid)


def trtq(jetson: dict[str, str], body: str) -> None:
    """Put a stand-in for trtq on PATH."""
    program = Path(jetson["path"]) / "trtq"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def started(exported: Path, jetson: dict[str, str], number: signal.Signals, *options: str) -> subprocess.Popen[str]:
    """Start the script in a process group of its own, which a signal reaches as from a terminal."""
    return subprocess.Popen(
        [SCRIPT, exported, "--output", exported.parent / "x", *options],
        env=variables(jetson["path"], {name: jetson[name] for name in ("CALLS", "STATE")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A run that ignores the signal, as under nohup, would hand that down, and a shell cannot undo it.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def living(group: int) -> list[str]:
    """Return the processes of a group, those aside that have ended and wait for the system to notice."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            program, _, fields = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, its_group, *_ = fields.split()
        if int(its_group) == group and state != "Z":
            found.append(program)
    return found


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
        (["RECIPE", "--mode", "fp16,fp32"], "fp32/model.onnx is not there: on the workstation run trtq build"),
        (["RECIPE", "--mode", "naive"], "--mode naive: engines are of fp32, fp16, ptq and qat"),
        (["RECIPE", "--power-mode", "MAXN"], "give nvpmodel's number of the mode"),
        (["RECIPE", "--power-mode", "0", "--keep-clocks"], "exclude each other"),
        (["RECIPE", "--power-mode", "0"], "--power-mode needs nvpmodel"),
        (["RECIPE", "--mode", "fp16;reboot"], "separated by commas"),
        (["RECIPE", "--colour", "red"], "--colour is no option"),
        (["RECIPE", "--output"], "--output wants a value"),
        (["RECIPE", "RECIPE"], "one recipe at a time"),
        (["RECIPE", "--output", "."], "is there already"),
        (["RECIPE", "--output", "/"], "is there already"),
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
    assert LOCKED in (partial / "machine/clocks-locked.txt").read_text()
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
    trtq(jetson, '[ "$1" != build ] || { echo building; exec sleep 600; }')
    child = started(exported, jetson, number)
    assert child.stdout is not None
    while "building" not in child.stdout.readline():
        pass
    assert Path(jetson["STATE"]).read_text().strip() == LOCKED
    os.killpg(child.pid, number)
    begun = time.monotonic()
    assert child.wait(timeout=30) == code
    assert time.monotonic() - begun < 20
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    assert not living(child.pid)


@needs_onnxruntime
def test_a_power_mode_that_wants_a_reboot_is_refused(exported: Path, jetson: dict[str, str]) -> None:
    done = compare(exported, "--backend", "ort", "--power-mode", "9", "--output", exported.parent / "x", **jetson)
    assert done.returncode == 2 and "without a reboot" in done.stderr
    assert Path(jetson["STATE"]).read_text().strip() == UNLOCKED
    assert "jetson_clocks \n" not in Path(jetson["CALLS"]).read_text(), "nothing was locked"
