"""What the pages hold: their blocks of code, their commands, their prose, and the anchors of their headings."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HOW_TO = sorted(DOCS.glob("*.md"))
GENERATED = sorted((DOCS / "reference").glob("*.md"))
PAGES = [*HOW_TO, *GENERATED, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.name


def blocks(path: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(path.read_text()) if found == language]


def lines(path: Path) -> Iterator[str]:
    """Yield every line that the page tells its reader to type, continuation lines joined."""
    for body in blocks(path, "bash"):
        yield from (line.strip() for line in body.replace("\\\n", " ").splitlines() if line.strip())


def commands(path: Path) -> Iterator[str]:
    """Yield the page's lines that call trtq."""
    yield from (line for line in lines(path) if line.startswith("trtq "))


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"(?m)^#+ (.+)$", prose(path))}


def slug(heading: str) -> str:
    """Return the anchor that a Markdown heading gets on GitHub, and on the site by mkdocs.yml's choice."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
