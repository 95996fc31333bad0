"""What several rooms' tests share: a small recipe, built once, and who is left out where torch is not installed."""

import cProfile
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

# A run in the background ignores interrupts and hands that down to what it starts; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Found = TypeVar("Found")
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
# Rooms whose tests cannot even be imported without a package.
NEEDS = {
    "torch": ["quant", "models", "pipeline", "test_readme.py"],
    "onnxruntime": ["backends/test_ort_backend.py", "ptq", "evaluate", "qdq/test_properties.py"],
    "sklearn": ["data"],
}
MISSING = [package for package in NEEDS if importlib.util.find_spec(package) is None]
collect_ignore = [path for package in MISSING for path in NEEDS[package]]

# The demo's name, so that the README's commands run on it.
NAME = "yolov7-tiny-digits"
SMALL_RECIPE = """\
seed = 0
threads = 1

[model]
name = "yolov7-tiny"

[model.arguments]
num_classes = 10
width = 0.125

[data]
name = "digit-scenes"
image_size = 64
train_images = 16
calibration_images = 16
validation_images = 8
batch = 8

[quantization]
calibrator = "max"
exclude = ["detect.*"]

[finetune]
iterations = 2
batch = 4
warmup_iterations = 1
"""


def pytest_report_header() -> list[str]:
    return [f"{package} is not installed: {', '.join(NEEDS[package])} left out" for package in MISSING]


def run_trtq(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, and return what it printed."""
    command = [sys.executable, "-m", "trtq", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "160", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)


def check_trtq(*arguments: str | Path, code: int = 0) -> str:
    """Run the command line, insist on its exit code and on no traceback, and return its standard output."""
    done = run_trtq(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def write_recipe(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the small recipe, each pair of texts replaced, and return its path."""
    text = SMALL_RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{NAME}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe with every mode built, for tests that only read."""
    for package in ("torch", "onnxruntime", "tensorrt_rtx", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    recipe = write_recipe(tmp_path_factory.mktemp("engines", numbered=False))
    check_trtq("build", recipe, "--mode", "fp16,ptq,qat")
    return recipe


def present(value: Found | None) -> Found:
    """Return what may be missing elsewhere and must be there here."""
    assert value is not None
    return value


def sentences(text: str) -> Sequence[str]:
    """Return the lines that trtq itself said on standard error."""
    return [line for line in text.splitlines() if line.startswith("trtq: ")]


def calls_of(work: Callable[[], object]) -> int:
    """Return how many calls of functions a piece of work makes: what grows with it, on any machine the same."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())
