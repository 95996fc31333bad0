"""The Docker and Jetson pages: what runs here is run, in order; what cannot is listed with its reason."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NAME, SHARED
from tests.docs.pages import ROOT, blocks

JETSON, DOCKER = ROOT / "docs/jetson.md", ROOT / "docs/docker.md"
A100 = SHARED / "engines" / "trt8-resnet18-a100"
# Lines that are not run here, and why.
NOT_RUN = {
    r"docker (build|run|compose)\b": "needs a Docker engine; their files are checked by test_docker.py",
    r"rsync\b": "needs a second machine",
    r"python3 -m venv|~/trtq/bin/": "installs from the network; benchmarks/docker_steps.py runs the same steps",
    r"docker/compare-on-orin\.sh .*--image": "needs a Jetson; a dry run in tests/docker prints its steps",
    r"sudo jetson_clocks|sh -ex on-device\.sh": "needs a Jetson; its files are taken from an A100 here",
    r"export (PATH|TRTQ_FOLDER|TRTQ_RENDER)=": "sets variables for lines that are not run",
}
# The layers, times and profile that trtexec wrote on a GPU, in place of the Jetson's: file here, kind there.
BROUGHT_BACK = {"timing": "times", "graph": "layers", "profile": "profile"}
ENGINES_OF = {"ptq": "qat", "qat": "qat-residual"}


def page_lines(page: Path) -> list[str]:
    """Return what the page tells its reader to type, continuation lines joined."""
    bodies = (body.replace("\\\n", " ") for body in blocks(page, "sh"))
    return [line.strip() for body in bodies for line in body.splitlines() if line.strip()]


def reason(line: str) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), None)


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-euo", "pipefail", "-c", line.replace("my-recipe", NAME)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """The repository's docker/ and engines/ as the page has them, the recipe with the page's own [engine] table."""
    shutil.copytree(built.parent, tmp_path / "engines")
    recipe = tmp_path / "engines" / built.name
    recipe.write_text(built.read_text() + blocks(JETSON, "toml")[0])
    (tmp_path / "docker").symlink_to(ROOT / "docker")
    return tmp_path


def bring_back(folder: Path) -> None:
    """Put what trtexec exported elsewhere where the commands of on-device.sh would have put it."""
    for mode, engine in ENGINES_OF.items():
        for kind, ours in BROUGHT_BACK.items():
            target = folder / "engines" / NAME / mode / f"engine.trtexec.plan.{ours}.json"
            shutil.copyfile(A100 / f"{engine}.{kind}.json", target)


def compared_elsewhere(folder: Path) -> None:
    """Make `comparison/`, as the device would have left it but for its times: layers as predicted."""
    shutil.copytree(folder / "engines", folder / "comparison")
    for mode in ("ptq", "qat"):
        there = folder / "comparison" / NAME / mode
        shutil.copyfile(there / "predicted.json", there / "layers.json")


@pytest.mark.slow
def test_what_the_jetson_page_says_runs(folder: Path) -> None:
    if not A100.is_dir():
        pytest.skip(f"{A100} is not there")
    bring_back(folder)
    compared_elsewhere(folder)
    ran = []
    for line in page_lines(JETSON):
        if reason(line):
            continue
        done = shell(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line
        ran.append(line)
    assert {line.split()[1] for line in ran if line.startswith("trtq")} == {
        "build",
        "report",
        "diff",
        "bench",
        "layers",
    }
    assert (folder / "on-this-processor" / NAME / "report.html").is_file()
    commands = (folder / "on-device.sh").read_text().splitlines()
    assert len(commands) == 6 and all(one.startswith("trtexec --") for one in commands)
    assert sum(one.endswith("/engine.trtexec.plan.bench.log") for one in commands) == 3, "a log beside the times"
    assert str(folder) not in "".join(commands), "paths are those of the device"
    told = {f"engine.trtexec.plan.{ours}.json" for ours in BROUGHT_BACK.values()}
    assert all(any(name in one for one in commands) for name in told), "the page names the files that trtexec writes"


def test_no_command_is_left_out_in_silence() -> None:
    for page in (JETSON, DOCKER):
        for line in page_lines(page):
            assert reason(line) or line.startswith(("trtq ", "sed ", "docker/compare")), f"{page.name}: {line}"
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in all_lines())] == []


def all_lines() -> list[str]:
    return [*page_lines(JETSON), *page_lines(DOCKER)]


def test_the_recipe_for_jetpack_5_is_one_that_its_tensorrt_takes(built: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "five.toml"
    recipe.write_text(built.read_text() + blocks(JETSON, "toml")[1])
    done = shell(f"trtq build {recipe} --mode fp16,ptq,qat --dry-run --tensorrt 8.5", tmp_path)
    assert done.returncode == 0 and "refused" not in done.stdout and done.stdout.count("$ trtexec") == 6
    recipe.write_text(built.read_text())
    refused = shell(f"trtq build {recipe} --mode qat --dry-run --tensorrt 8.5", tmp_path)
    assert "refused" in refused.stdout, "without the page's lines it does not"


def test_options_and_paths_in_docker_commands_exist() -> None:
    for line in all_lines():
        for argument in re.findall(r"--build-arg (\w+)=", line):
            file = "docker/orin.Dockerfile" if "orin.Dockerfile" in line else "Dockerfile"
            assert re.search(rf"(?m)^ARG {argument}=", (ROOT / file).read_text()), f"{line}: {file} has no {argument}"
        for file in re.findall(r"--file (\S+)", line):
            assert (ROOT / file).is_file(), line
        service = re.search(r"run --rm (\w+)$", line)
        if service and "compose" in line:
            assert re.search(rf"(?m)^  {service[1]}:", (ROOT / "docker/compose.yaml").read_text()), line
    variables = set(re.findall(r"\$\{(\w+):?-", (ROOT / "docker/compose.yaml").read_text()))
    assert variables - {"EXTRAS"} <= set(re.findall(r"\b[A-Z_]{4,}\b", DOCKER.read_text())), "the page names them all"
