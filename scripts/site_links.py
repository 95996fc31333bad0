"""A hook of MkDocs (mkdocs.yml): links from docs/ to the rest of the repository lead to GitHub on the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/trtq/trtq/blob/main/"
OUTWARD = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's text with every link that leaves docs/ made absolute."""
    folder = (ROOT / "docs" / page.file.src_path).parent

    def outward(found: re.Match[str]) -> str:
        target = (folder / found["path"]).resolve()
        inside = target.is_relative_to(ROOT / "docs") or not target.is_relative_to(ROOT)
        return found[0] if inside else f"]({REPOSITORY}{target.relative_to(ROOT).as_posix()}"

    return OUTWARD.sub(outward, markdown)
