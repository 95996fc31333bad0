"""The pictures of docs/reading-a-report.md: the demo recipe's page in a headless Chromium.

The recipe has to be built (`trtq build engines/yolov7-tiny-digits.toml`).

    python -m benchmarks.page_pictures [RECIPE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.recording import ROOT
from tests.report.browser import Browser
from trtq.config import load_recipe
from trtq.pipeline.result import write_report

IMAGES = ROOT / "docs" / "images"
WIDTH_PX, HEIGHT_PX = 1280, 860
SHOWN = 3  # of the ranked differences
# What brings the page to what each picture shows.
PICTURES = {
    "report-modes": "scrollTo(0, 0)",
    "report-graphs": f"document.querySelectorAll('a[data-show]')[{SHOWN}].click()",
}


def main() -> None:
    recipe = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "engines" / "yolov7-tiny-digits.toml")
    with tempfile.TemporaryDirectory() as folder:
        page, _ = write_report(load_recipe(recipe), Path(folder) / "report.html")
        browser = Browser(Path(folder) / "profile", WIDTH_PX, HEIGHT_PX)
        try:
            browser.resize(WIDTH_PX, HEIGHT_PX)
            for name, script in PICTURES.items():
                browser.open(page)
                browser.evaluate(script)
                browser.screenshot(IMAGES / f"{name}.png")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
