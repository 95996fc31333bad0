"""docs/layers.md: its commands run as they stand there, on the files of real engines."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import run_trtq
from tests.docs.test_pages import commands

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / ".." / "shared" / "data" / "engines" / "trt8-resnet18-a100"


@pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_commands_run(tmp_path: Path) -> None:
    for name in ("qat.graph.json", "qat.profile.json", "qat-residual.graph.json"):
        shutil.copyfile(ENGINES / name, tmp_path / name)
    rows = ["conv", "conv [profile 1]"]
    (tmp_path / "engine.json").write_text(json.dumps({"Layers": rows, "Bindings": []}))
    lines = list(commands(ROOT / "docs" / "layers.md"))
    assert len(lines) >= 4
    for line in lines:
        done = run_trtq(*shlex.split(line)[1:], cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert json.loads((tmp_path / "layers.json").read_text())["signals"]["time_us"] == pytest.approx(1095.68)
