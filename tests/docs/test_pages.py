"""The pages: every command and option in them exists, links and paths lead somewhere, tables say what the code says."""

import dataclasses
import importlib
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import check_trtq, run_trtq
from trtq import __version__, config, errors
from trtq.config import Recipe, load_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*HOW_TO, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>.+?) \| (?P<meaning>.+) \|$", re.MULTILINE)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w$}])/(?:work|tmp|home|root|mnt|Users)/")


def blocks(path: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(path.read_text()) if found == language]


def commands(path: Path) -> Iterator[str]:
    for body in blocks(path, "bash"):
        yield from (line for line in body.replace("\\\n", " ").splitlines() if line.startswith("trtq "))


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


@cache
def usage(*command: str) -> str:
    """Return what `trtq COMMAND --help` lists; empty for a command that does not exist."""
    done = run_trtq(*command, "--help")
    return done.stdout.partition("Options:")[2] if done.returncode == 0 else ""


def wrong(line: str) -> list[str]:
    """Return the words of a command line that trtq does not know."""
    _, command, *words = shlex.split(line)
    text = usage(command)
    if "\nCommands:" in text:
        command, text = f"{command} {words[0]}", usage(command, words[0])
    known = frozenset(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))
    if not known:
        return [command]
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    assert {line: found for line in commands(page) if (found := wrong(line))} == {}


def test_pages_show_commands_and_a_wrong_one_is_found() -> None:
    shown = {shlex.split(line)[1] for page in HOW_TO for line in commands(page)}
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
    assert wrong("trtq cache melt ptq.cache") == ["cache melt"]
    assert wrong("trtq cache show ptq.cache --fixx") == ["--fixx"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = prose(page)
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{link}: no such page"
        headings = re.findall(r"(?m)^#+ (.+)$", target.read_text())
        assert not anchor or anchor in map(slug, headings), f"{link}: no such heading"
    for path in re.findall(r"`((?:trtq|tests|docker|docs|benchmarks|scripts)/[\w./-]*)`", text):
        invented = re.search(r"tq105_short_name|/name\.py$", path)
        assert invented or (ROOT / path).exists(), f"{path}: does not exist"


def slug(heading: str) -> str:
    """Return the anchor that a Markdown heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    assert not MACHINE_PATH.findall(page.read_text())
    assert MACHINE_PATH.search("see /tmp/x") and not MACHINE_PATH.search('"$PWD:/workspace"')


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Return the tables of docs/recipes.md: section -> key -> (default, meaning)."""
    parts = re.split(r"(?m)^## ", (ROOT / "docs/recipes.md").read_text())[1:]
    sections = {part.partition("\n")[0].strip("[] "): part for part in parts}
    return {
        name: {row["key"]: (row["default"], row["meaning"]) for row in ROW.finditer(part)}
        for name, part in sections.items()
    }


SPECS: dict[str, tuple[Any, frozenset[str]]] = {
    "Top level": (Recipe, frozenset({"path", "model", "data", "quantization", "finetune", "engine"})),
    "model": (config.ModelSpec, frozenset()),
    "data": (config.DataSpec, frozenset()),
    "quantization": (config.QuantSpec, frozenset()),
    "finetune": (config.FinetuneSpec, frozenset()),
    "engine": (config.EngineSpec, frozenset()),
}


def default_of(one: dataclasses.Field[Any]) -> Any:
    if one.default_factory is not dataclasses.MISSING:
        return one.default_factory()
    return list(one.default) if isinstance(one.default, tuple) else one.default


def read_default(text: str) -> Any:
    if text == "required":
        return dataclasses.MISSING
    return None if text == "none" else tomllib.loads(f"value = {text.strip('`')}")["value"]


@pytest.mark.parametrize("section", SPECS)
def test_the_recipe_page_has_every_key_and_default(section: str) -> None:
    kind, elsewhere = SPECS[section]
    rows = documented()[section]
    hints = typing.get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind) if one.name not in elsewhere}
    assert list(rows) == list(fields)
    for name, one in fields.items():
        default, meaning = rows[name]
        assert read_default(default) == default_of(one), name
        for choice in typing.get_args(hints[name]) if typing.get_origin(hints[name]) is typing.Literal else ():
            assert f"`{choice}`" in meaning, f"{name}: {choice} is not explained"


def test_the_recipe_page_covers_every_table() -> None:
    tables = {
        one.name
        for one in dataclasses.fields(Recipe)
        if dataclasses.is_dataclass(typing.get_type_hints(Recipe)[one.name])
    }
    assert tables == set(SPECS) - {"Top level"}
    assert {choice for choice in config.MODES if f"`{choice}`" in prose(ROOT / "docs/recipes.md")} == set(config.MODES)


@pytest.mark.parametrize(
    "module, names", [("trtq.data", "DATASETS"), ("trtq.models", "ZOO"), ("trtq.backends", "BUILDERS")]
)
def test_the_recipe_page_names_all_that_there_is(module: str, names: str) -> None:
    if module == "trtq.models":
        pytest.importorskip("torch", reason="torch is not installed")
    text = prose(ROOT / "docs/recipes.md")
    assert [name for name in getattr(importlib.import_module(module), names) if f"`{name}`" not in text] == []


def test_the_rtx_targets_are_all_named() -> None:
    targets = importlib.import_module("trtq.backends.rtx").TARGETS
    assert re.findall(r"`(sm\d+)`", documented()["engine"]["targets"][1]) == list(targets)


@pytest.mark.parametrize("page", ["recipes.md", "own-network.md"])
def test_recipes_on_pages_are_recipes(page: str, tmp_path: Path) -> None:
    found = blocks(ROOT / "docs" / page, "toml")
    assert found
    for number, body in enumerate(found):
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(body)
        assert load_recipe(recipe).model.name


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


def test_the_example_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/own-network.md shows, as it stands there: the network, its weights, its recipe."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    network, convert = blocks(ROOT / "docs/own-network.md", "python")
    recipe = tmp_path / "flowers.toml"
    recipe.write_text(blocks(ROOT / "docs/own-network.md", "toml")[0])
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets/flowers.py").write_text(network)
    for number, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shade in range(5):
            image.new("RGB", (80, 64), (40 * shade, 80 * number, 90)).save(tmp_path / "photos" / name / f"{shade}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    torch.save(importlib.import_module("mynets.flowers").FlowerNet(3).state_dict(), "flowers.pt")
    exec(compile(convert, "own-network.md", "exec"), {})
    check_trtq("quantize", recipe)
    check_trtq("export", recipe, "--mode", "ptq")
    check_trtq("unify", "flowers/ptq/exported.onnx", "-o", "flowers-int8.onnx")
    check_trtq("lint", "flowers-int8.onnx")
