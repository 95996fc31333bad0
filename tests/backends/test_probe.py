from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from trtq.backends import probe
from trtq.backends.probe import Probe, Probing, is_installed

MODULES = {
    "good": 'print("hello")\n__version__ = "10.3.0"\nclass IBuilderConfig: int8_calibrator = None\n',
    "served": 'def get_available_providers(): return ["CPUExecutionProvider"]\n__version__ = "1.2"\n',
    "broken": 'raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")\n',
    "crashing": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "silent": "import os\nos._exit(3)\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_loads_says_its_version_and_what_does_not_says_why(modules: Path) -> None:
    found = Probing([*MODULES, "absent", "folder", "absent.below"]).results()
    assert found == {
        "good": Probe("10.3.0", calibrators=True),
        "served": Probe("1.2", providers=("CPUExecutionProvider",)),
        "broken": Probe(error="ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"),
        "crashing": Probe(error="died by SIGSEGV while loading"),
        "silent": Probe(error="ended with exit code 3"),
    }
    assert not set(MODULES) & set(sys.modules)


def test_a_package_that_hangs_is_ended(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "hanging.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.5)
    probing = Probing(["hanging"])
    started = time.monotonic()
    assert "took more than 0.5 s" in probing.results()["hanging"].error
    assert time.monotonic() - started < 10
    assert probing.children["hanging"].returncode is not None


def test_a_folder_in_the_current_one_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("raise ImportError('a checkout, not the package')\n")
    monkeypatch.chdir(tmp_path)
    assert not Probing(["typer"]).results()["typer"].error
    assert is_installed("typer") and not is_installed("folder")
