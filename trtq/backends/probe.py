"""Whether vendor packages load here: each is imported in a child process, where a crash is an answer too."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_S = 20.0
ERROR_CHARACTERS = 200
# Prints one line of JSON: the version, what runs ONNX Runtime, and whether TensorRT still has calibrators.
SCRIPT = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
providers = getattr(module, "get_available_providers", list)()
print(json.dumps({
    "version": str(getattr(module, "__version__", "")),
    "providers": providers,
    "calibrators": hasattr(getattr(module, "IBuilderConfig", None), "int8_calibrator"),
}))
"""


@dataclass(frozen=True)
class Probe:
    """A package that is installed: its version, or the error with which it does not load."""

    version: str = ""
    error: str = ""
    providers: tuple[str, ...] = ()
    calibrators: bool = False


@dataclass
class Probing:
    """Children that load packages, all at once; those that are not installed have none."""

    modules: Iterable[str]
    children: dict[str, subprocess.Popen[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.children = {name: _start(name) for name in self.modules if is_installed(name)}

    def results(self) -> dict[str, Probe]:
        """Wait for all children and return what they said, by module."""
        return {name: _result(child) for name, child in self.children.items()}


def is_installed(module: str) -> bool:
    """Tell whether a module can be found, without importing it; a folder of that name without code is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _start(module: str) -> subprocess.Popen[str]:
    # From the root folder: a checkout called `tensorrt` in the current one would be imported in the package's place.
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, module],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _result(child: subprocess.Popen[str]) -> Probe:
    try:
        printed, errors = child.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Probe(error=f"took more than {TIMEOUT_S:g} s to load")
    facts = _facts(printed)
    if child.returncode == 0 and facts is not None:
        return Probe(str(facts["version"]), "", tuple(map(str, facts["providers"])), bool(facts["calibrators"]))
    if child.returncode < 0:
        return Probe(error=f"died by {signal.Signals(-child.returncode).name} while loading")
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return Probe(error=lines[-1][:ERROR_CHARACTERS] if lines else f"ended with exit code {child.returncode}")


def _facts(printed: str) -> Mapping[str, Any] | None:
    """Return the last line that is an object: libraries may print while they load."""
    for line in reversed(printed.splitlines()):
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        return facts if isinstance(facts, dict) and {"version", "providers", "calibrators"} <= facts.keys() else None
    return None
