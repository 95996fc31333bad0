"""The site builds without a warning, reads without a network, and finds words."""

import html.parser
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.report.browser import EXECUTABLE, Browser

# As in the logs and titles of those who had the trouble.
TYPED = (
    "Reformatting CopyNode",
    "Unknown option: --int8",
    "Scale coefficients must all be positive",
    "No matching rules found for input operand types",
    "fused_moving_avg_obs_fake_quant",
    "undefined symbol nvdla",
    "runs out of memory",
)
# What a table's code may be broken into: words, and what stands between them.
PIECES = r"/[^\s\/=:,.-]+|[\/=:,.]|-+/g"
# Returns how wide the page is, and what of its tables' code is broken within a word.
MEASURED = """(() => {
  const broken = one => one.getClientRects().length > (one.textContent.match(PIECES) || []).length;
  const code = [...document.querySelectorAll(".md-content td code, .md-content th code")];
  return [document.documentElement.scrollWidth, ...code.filter(broken).map(one => one.textContent)];
})()""".replace("PIECES", PIECES)
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href"}


class Requests(html.parser.HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag in LOADED and facts.get("rel") != "canonical" and (address := facts.get(LOADED[tag])):
            self.found.append(address)


def requests(text: str) -> list[str]:
    parser = Requests()
    parser.feed(text)
    return parser.found


def elsewhere(addresses: list[str]) -> list[str]:
    return [address for address in addresses if re.match(r"(\w+:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (pip install '.[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_asks_for_nothing_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: found for page in pages if (found := elsewhere(requests(page.read_text())))} == {}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?https?:[^)]*", styles)
    assert elsewhere(requests('<script src="https://unpkg.com/x"></script><img src="images/x.svg">'))


def test_what_it_fetches_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for address in requests(page.read_text()):
            path = address.partition("?")[0].partition("#")[0]
            assert not path or (page.parent / path).exists(), f"{page.name}: {address}"


@pytest.mark.skipif(EXECUTABLE is None, reason="chromium is not installed")
@pytest.mark.parametrize("width_px", [390, 1280])
def test_pages_fit_their_width_and_tables_break_no_word(site: Path, tmp_path: Path, width_px: int) -> None:
    browser = Browser(tmp_path / "profile", width_px, 900)
    try:
        browser.resize(width_px, 900)
        for page in sorted(site.rglob("*.html")):
            if page.name != "404.html":
                browser.open(page)
                assert browser.evaluate(MEASURED) == [width_px], page.name
        browser.evaluate("document.querySelector('.md-content').append('x'.repeat(999))")
        assert browser.evaluate(MEASURED) != [width_px]
    finally:
        browser.close()


def test_search_finds_the_words_that_users_type(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {one["location"].partition("#")[0] for one in index["docs"] if "slower than PTQ" in one["title"]}
    assert "troubleshooting.html" in found
    for words in TYPED:
        assert any(words in one["title"] + one["text"] for one in index["docs"]), words
