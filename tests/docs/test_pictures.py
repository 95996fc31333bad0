"""The drawn pictures of the pages are what the code draws now, by what is written in them; layout is Graphviz's."""

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, HOW_TO, prose

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from benchmarks import pictures

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed")


def words(picture: Path) -> list[str]:
    """Return what a picture says, on its cards, in its legend and on hover."""
    return sorted(re.findall(r">([^<>\n]+)<", picture.read_text()))


def same(folder: Path, count: int) -> None:
    drawn = sorted(folder.glob("*.svg"))
    assert len(drawn) == count
    for one in drawn:
        assert words(one) == words(DOCS / "images" / one.name), f"{one.name}: benchmarks.pictures draws it again"


def draw(what: Callable[[], None], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setattr(pictures, "IMAGES", folder)
    what()
    return folder


@needs_dot
def test_the_max_pool_is_what_is_predicted_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    same(draw(lambda: pictures.draw_pool(tmp_path / "scratch"), monkeypatch, tmp_path), 2)


@needs_dot
@pytest.mark.skipif(not pictures.ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_the_residual_blocks_are_those_of_the_published_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same(draw(pictures.draw_residual, monkeypatch, tmp_path), 2)


@needs_dot
@pytest.mark.slow
def test_the_compiled_blocks_are_what_is_compiled_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    same(draw(lambda: pictures.draw_elan(scratch), monkeypatch, tmp_path), 4)


def test_no_page_calls_black_what_is_white_on_a_dark_page() -> None:
    told = [page.name for page in HOW_TO if re.search(r"(?i)\bblack\b", prose(page))]
    assert set(told) <= {"graph.md"} and "black here is white there" in " ".join(prose(DOCS / "graph.md").split())


def test_another_word_is_found(tmp_path: Path) -> None:
    original = DOCS / "images" / "pool-bad.svg"
    (tmp_path / original.name).write_text(original.read_text().replace("4 conversions", "5 conversions"))
    with pytest.raises(AssertionError, match=r"pool-bad\.svg"):
        same(tmp_path, 1)
