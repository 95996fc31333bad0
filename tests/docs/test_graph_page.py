"""docs/graph.md: its commands run as they stand there, on the files of a real engine; its figures are the code's."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import SHARED, run_trtq
from tests.docs.test_pages import commands
from trtq.report.regions import LARGEST_LAYERS, SMALLEST_LAYERS
from trtq.report.view import ONLY

PAGE = Path(__file__).resolve().parents[2] / "docs" / "graph.md"
ENGINE = SHARED / "engines" / "trt8-resnet18-a100"


@pytest.mark.skipif(not ENGINE.is_dir(), reason="the recorded engine files are not beside this checkout")
@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed")
def test_commands_run(tmp_path: Path) -> None:
    for name in ("qat.graph.json", "qat.profile.json"):
        shutil.copyfile(ENGINE / name, tmp_path / name)
    lines = [line for line in commands(PAGE) if "qat.graph.json" in line]
    assert len(lines) == len(list(commands(PAGE))) - 2 == 4
    for line in lines:
        done = run_trtq(*shlex.split(line)[1:], cwd=tmp_path, PYTHONPATH=str(PAGE.parents[1]))
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert (tmp_path / done.stdout.strip()).read_text().startswith("<svg")


def test_the_page_says_what_the_code_does() -> None:
    words = " ".join(PAGE.read_text().split())
    assert all(f"`{word}`" in words for word in ONLY)
    assert f"more than {LARGEST_LAYERS} layers" in words
    assert SMALLEST_LAYERS == 3
    assert "fewer than three" in words
