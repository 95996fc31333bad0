"""Links: every page, picture and heading that is linked exists, on GitHub as on the site; every page is in the menu."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.site_links import on_page_markdown
from tests.docs.pages import DOCS, PAGES, ROOT, anchors, name_of, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w$}])/(?:work|tmp|home|root|mnt|Users)/")


def broken(page: Path, text: str) -> Iterator[str]:
    """Yield what is wrong with the links of a page's text."""
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file():
            yield f"{link}: no such page"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page, prose(page))) == []


def test_a_link_out_of_the_site_leads_to_github_and_no_other_is_touched() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_path="reference/recipe.md"))
    text = "[a](../../README.md) [b](../ptq.md) [c](../images/x.svg) [d](#e)"
    linked = on_page_markdown(text, page=page)
    assert linked == text.replace("../../README.md", "https://github.com/trtq/trtq/blob/main/README.md")


def test_a_broken_link_is_found() -> None:
    page = DOCS / "unify.md"
    for link in ("nowhere.md", "unify.md#nowhere", "#nowhere", "../NOWHERE.md", "http://example.com"):
        assert list(broken(page, f"[x]({link})")), link
    assert not list(broken(page, "[x](#choose) [y](rules.md) [z](https://example.com)"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page: Path) -> None:
    for path in re.findall(r"`((?:trtq|tests|docker|docs|benchmarks|scripts)/[\w./-]*)`", prose(page)):
        invented = re.search(r"tq105_short_name|/name\.(?:py|md)$", path)
        assert invented or (ROOT / path).exists(), f"{path}: does not exist"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    assert not MACHINE_PATH.findall(page.read_text())
    assert MACHINE_PATH.search("see /tmp/x") and not MACHINE_PATH.search('"$PWD:/workspace"')


def test_the_menu_has_every_page_and_no_other() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r": ([\w/.-]+\.md)$", menu, re.MULTILINE)
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_picture_is_shown_somewhere() -> None:
    texts = "".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    unused = [path.name for path in (DOCS / "images").iterdir() if f"images/{path.name}" not in texts]
    assert not unused
