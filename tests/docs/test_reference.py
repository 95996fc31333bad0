"""The written pages are what the code and the records say now, and say all of it."""

import dataclasses
import importlib
import re
import typing
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.pages import DOCS, SECTIONS, Section, with_section
from scripts import reference
from tests.docs.pages import name_of
from trtq import config
from trtq.cli import COMMANDS

RECIPE = DOCS / "reference" / "recipe.md"


@pytest.mark.parametrize("page", reference.PAGES, ids=name_of)
def test_a_written_page_is_what_the_code_says(page: Path) -> None:
    if (
        page.name == "commands.md"
        and f"typer=={version('typer')} " not in (DOCS.parent / "constraints.txt").read_text()
    ):
        pytest.skip(f"typer {version('typer')} is not the one of constraints.txt, and words its help otherwise")
    assert page.read_text() == reference.PAGES[page](), "python -m scripts.reference writes it again"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section.page} {section.name}")
def test_a_table_is_what_was_recorded(section: Section) -> None:
    if not section.source.exists():
        pytest.skip(f"{section.source.name} is not beside this checkout")
    text = (DOCS / section.page).read_text()
    assert with_section(text, section) == text, "python -m benchmarks.pages writes it again"


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section 'lost'"):
        with_section("# A page\n", Section("page.md", "lost", lambda: "", DOCS))


def specs() -> dict[str, typing.Any]:
    hints = typing.get_type_hints(config.Recipe)
    return {"Recipe": config.Recipe, **{name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}}


@pytest.mark.parametrize("table", specs())
def test_every_key_of_a_recipe_has_a_meaning(table: str) -> None:
    kind = specs()[table]
    keys = {one.name for one in dataclasses.fields(kind)} - ({"path", *specs()} if table == "Recipe" else set())
    meanings = reference.field_texts(kind)
    assert set(meanings) == keys
    for name, hint in typing.get_type_hints(kind).items():
        for choice in typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ():
            assert f"`{choice}`" in meanings[name], f"{name}: {choice} is not explained"


@pytest.mark.parametrize(
    "module, names", [("trtq.data", "DATASETS"), ("trtq.models", "ZOO"), ("trtq.backends", "BUILDERS")]
)
def test_the_recipe_page_names_all_that_there_is(module: str, names: str) -> None:
    if module == "trtq.models":
        pytest.importorskip("torch", reason="torch is not installed")
    text = RECIPE.read_text()
    assert [name for name in getattr(importlib.import_module(module), names) if f"`{name}`" not in text] == []


def test_the_rtx_targets_are_all_named() -> None:
    targets = importlib.import_module("trtq.backends.rtx").TARGETS
    assert re.findall(r"`(sm\d+)`", reference.field_texts(config.EngineSpec)["targets"]) == list(targets)


def test_every_command_and_option_is_on_the_page() -> None:
    text = reference.command_page()
    assert [name for name, _, _ in COMMANDS if f"## trtq {name}\n" not in text] == []
    assert "## trtq cache to-qdq\n" in text
    assert text.count("- `-o, --output <path>`") >= 10
