"""Every command of every page runs, in the order of the page and in one folder, on files that are made for it."""

import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import NAME
from tests.docs.pages import HOW_TO, ROOT, lines, name_of
from tests.docs.things import make
from trtq import cli

OUTPUTS = {"-o", "--output", "--precisions", "--network", "--timing-cache"}
# Exit codes that are the answer and no failure, by what the command line holds.
ANSWERS = {"trtq lint": {0, 1}, "--fail-on": {0, 1}, "--history": {0, 1}}
# What needs a GPU or NVIDIA's program: it runs where that is, and where it is not the refusal has to say so.
NEEDS_GPU = ("--backend trt", "--require trt", "--require gpu")
# Commands that no test runs, and why.
NOT_RUN = {
    r"trtq bench \S+\.trt\.plan": "needs a GPU",
    r"docker\b": "needs a Docker engine",
    r"(sudo|nvpmodel|jetson_clocks|tegrastats|trtexec)\b": "needs a Jetson or NVIDIA's program",
}
# What is given beside, so that an engine is not timed for ten seconds.
SHORT = ["--duration", "0.05", "--warm-up", "5"]
# Run by tests/test_readme.py, on the same recipe.
README = [shlex.split(line, comments=True) for line in lines(ROOT / "README.md") if NAME in line]
# Pages whose commands another test runs.
TESTED_APART = {"layers.md": "test_layers_page.py"}
PYTHON_TOOLS = {"benchmarks", "scripts"}


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    error: str


def reason_not_to_run(line: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line)), None)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Run trtq in this process: a hundred interpreters would start for a minute."""
    monkeypatch.setattr(sys, "argv", ["trtq", *words])
    output, error = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return Ended(code, output.getvalue(), error.getvalue())


def files_of(words: list[str]) -> Iterator[str]:
    """Yield the names on a command line that the command may read."""
    for before, word in zip(["", *words], words, strict=False):
        if before not in OUTPUTS and not word.startswith("-"):
            yield word.rstrip("/")
            yield f"{word.rstrip('/')}.toml"  # the folder that a recipe has built
            yield f"{Path(word).parent}.toml"
            yield f"{Path(word).parent.parent}.toml"


def check(line: str, ended: Ended) -> None:
    allowed = next((codes for part, codes in ANSWERS.items() if part in line), {0})
    if ended.code in (2, 3) and any(part in line for part in NEEDS_GPU):
        assert re.search(r"GPU|TensorRT|trtexec|trt has no implicit PTQ here", ended.error), f"{line}: {ended.error}"
        return
    assert ended.code in allowed, f"{line}: exit code {ended.code}\n{ended.error}"
    assert "Traceback" not in ended.error, f"{line}: {ended.error}"


@pytest.mark.parametrize(
    "page", [page for page in HOW_TO if list(lines(page)) and page.name not in TESTED_APART], ids=name_of
)
def test_commands_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for package in ("torch", "onnxruntime", "tensorrt_rtx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.syspath_prepend(tmp_path)
    for line in lines(page):
        words = shlex.split(line, comments=True)
        if not words or words[0] != "trtq" or reason_not_to_run(line):
            continue
        for name in files_of(words[1:]):
            make(name, tmp_path, request, page.name)
        if words not in README:
            check(line, run([*words[1:], *(SHORT if words[1] == "bench" else [])], monkeypatch))


@pytest.mark.parametrize("page", HOW_TO, ids=name_of)
def test_other_commands_exist(page: Path) -> None:
    for line in lines(page):
        words = shlex.split(line, comments=True)
        if not words or words[0] == "trtq" or reason_not_to_run(line):
            continue
        assert exists(words), f"{page.name}: '{line}' is neither run nor known"


def exists(words: list[str]) -> bool:
    """Return whether a command line that is not trtq's names a make target, an extra or a script that exists."""
    match words:
        case ["make", target]:
            return re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text()) is not None
        case ["pip", "install", *_, package]:
            named = re.findall(r"\[(.*)\]", package)
            declared = (ROOT / "pyproject.toml").read_text()
            extras = [one for group in named for one in group.split(",")]
            return all(re.search(rf"(?m)^{one} = \[", declared) for one in extras)
        case ["python", "-m", module, *_]:
            package, _, name = module.partition(".")
            return package in PYTHON_TOOLS and (ROOT / package / f"{name}.py").exists()
        case ["export", _] | ["cd", _]:
            return True
    return False


def test_what_is_tested_apart_is() -> None:
    for page, test in TESTED_APART.items():
        assert page in (ROOT / "tests" / "docs" / test).read_text()


def test_what_is_not_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not exists(["make", "coffee"]) and not exists(["pip", "install", "trtq[coffee]"])
    assert not exists(["python", "-m", "benchmarks.coffee"]) and not exists(["brew", "coffee"])
    with pytest.raises(AssertionError, match="exit code 2"):
        check("trtq lint coffee.onnx", run(["lint", str(tmp_path / "coffee.onnx")], monkeypatch))


def test_the_make_targets_of_the_pages_are_planned() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    planned = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "trtq build engines/" in planned
