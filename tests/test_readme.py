"""The README: every command in it runs, its figures are the recorded ones, its links lead somewhere."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.readme import with_tables
from tests.conftest import NAME, ROOT, check_trtq

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def workplace(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small recipe, built, under the demo's name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(built.parent, folder / "engines")
    return folder


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] == "trtq"], ids=" ".join)
def test_a_command_of_the_readme_runs(command: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    assert check_trtq(*command[1:]).strip()


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] == "make"], ids=" ".join)
def test_a_make_target_of_the_readme_exists(command: list[str]) -> None:
    planned = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if command[1] == "demo":
        assert f"trtq build engines/{NAME}.toml --mode fp16,ptq,qat" in planned


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] == "pip"], ids=" ".join)
def test_an_extra_of_the_readme_exists(command: list[str]) -> None:
    extras = re.findall(r"\[(.*)\]", command[-1])
    declared = re.search(
        r"\[project.optional-dependencies\](.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert declared is not None
    for extra in ",".join(extras).split(",") if extras else []:
        assert re.search(rf"^{extra} = ", declared.group(1), re.MULTILINE), extra


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    assert {one[0] for one in COMMANDS if one} == {"trtq", "make", "pip"}


def test_the_result_tables_are_the_recorded_ones() -> None:
    assert with_tables(README) == README


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
