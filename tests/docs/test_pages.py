"""The pages: every command and option in them exists, tables say what the code says."""

import dataclasses
import inspect
import re
import shlex
import typing
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import run_trtq
from tests.docs.pages import DOCS, HOW_TO, ROOT, blocks, commands, name_of, prose
from trtq import __version__, config, errors

__all__ = ["blocks", "commands"]

# docker's; trtexec's of versions before 11, which trtq never says.
OTHERS = {"--build-arg", "--best", "--precisionConstraints"}


@cache
def usage(*command: str) -> str:
    """Return what `trtq COMMAND --help` lists; empty for a command that does not exist."""
    done = run_trtq(*command, "--help")
    return done.stdout.partition("Options:")[2] if done.returncode == 0 else ""


def wrong(line: str) -> list[str]:
    """Return the words of a command line that trtq does not know."""
    _, command, *words = shlex.split(line, comments=True)
    text = usage(command)
    if "\nCommands:" in text:
        command, text = f"{command} {words[0]}", usage(command, words[0])
    known = frozenset(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))
    if not known:
        return [command]
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", HOW_TO, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    assert {line: found for line in commands(page) if (found := wrong(line))} == {}


def spans(page: Path) -> list[str]:
    """Return the code within the page's sentences and tables."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


@pytest.mark.parametrize("page", [*HOW_TO, ROOT / "README.md"], ids=name_of)
def test_commands_and_options_in_a_sentence_exist(page: Path) -> None:
    named = {span for span in spans(page) if re.match("trtq [a-z]", span) and span != "trtq cache"}
    assert {span: found for span in named if (found := wrong(span))} == {}
    options = {span.split()[0].partition("=")[0] for span in spans(page) if re.match("--[a-z]", span)}
    assert sorted(options - known_options() - OTHERS) == [], "neither trtq nor the programs that it names have it"


@cache
def known_options() -> frozenset[str]:
    """Return every option of trtq's commands, of the comparison script, and of trtexec as far as trtq speaks of it."""
    sources = [
        DOCS / "reference" / "commands.md",
        ROOT / "docker" / "compare-on-orin.sh",
        *(ROOT / "trtq").rglob("*.py"),
    ]
    return frozenset(re.findall(r"--[a-z][A-Za-z0-9-]*", "".join(path.read_text() for path in sources)))


def test_pages_show_commands_and_a_wrong_one_is_found() -> None:
    shown = {line.split()[1] for page in HOW_TO for line in commands(page)}
    assert shown >= {
        "build",
        "quantize",
        "finetune",
        "export",
        "unify",
        "lint",
        "eval",
        "layers",
        "diff",
        "graph",
        "report",
    }
    assert wrong("trtq polish model.onnx") == ["polish"]
    assert wrong("trtq lint model.onnx --fixx -o mended.onnx") == ["--fixx"]
    assert wrong("trtq fp16 model.onnx --fp16-io") == []
    assert "--coffee" not in known_options() and "--useCudaGraph" in known_options()
    assert wrong("trtq cache melt ptq.cache") == ["cache melt"]
    assert wrong("trtq cache show ptq.cache --fixx") == ["--fixx"]


def test_the_modes_are_all_named() -> None:
    assert [one for one in config.MODES if f"`{one}`" not in prose(ROOT / "docs/recipes.md")] == []


def test_every_error_and_its_exit_code_is_on_the_page() -> None:
    rows = set(re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    kinds = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.TrtqError)]
    assert rows == {(str(one.exit_code), one.__name__) for one in kinds}


def test_every_family_of_rules_is_on_the_page() -> None:
    from trtq.rules import RULES

    rows = re.findall(r"^\| (TQ\d)xx \|", (ROOT / "docs/unify.md").read_text(), re.MULTILINE)
    assert set(rows) == {one.code[:3] for one in RULES}
    assert len(RULES) == 40, "the page counts them"


def test_every_signal_is_on_the_page() -> None:
    from trtq.layers import Signals

    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reading-a-report.md").read_text(), re.MULTILINE)
    assert set(rows) == {one.name for one in dataclasses.fields(Signals)}


def test_every_difference_is_on_the_page() -> None:
    from trtq.compare.difference import DifferenceClass

    text = (ROOT / "docs/reading-a-report.md").read_text()
    rows = re.findall(r"^\| ([a-z0-9, ]+) \|", text.partition("## Where the engines differ")[2], re.MULTILINE)
    words = {word for row in rows for word in row.split(", ")} - {"what"}
    assert words == set(typing.get_args(DifferenceClass))


def test_make_targets_exist_and_the_changelog_knows_the_version() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", text, re.MULTILINE), target
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == __version__


def test_the_import_order_is_the_house_s() -> None:
    from tests.test_house import ROOMS

    quoted = "".join(line[2:] + " " for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line[:2] == "> ")
    assert quoted.replace("·", " ").split() == ROOMS
