"""What every benchmark shares: how a claim is run and where its result is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trtq import __version__, files
from trtq.machine import machine

ROOT = Path(__file__).parents[1]
# `make bench-check` records elsewhere, to compare.
RESULTS = Path(os.environ.get("TRTQ_RECORDS") or ROOT / "benchmarks" / "results")


def trtq(*arguments: str | Path) -> tuple[dict[str, Any], float]:
    """Run `trtq ARGUMENTS --json`; return what it printed and the seconds it took, interpreter start included."""
    command = [sys.executable, "-m", "trtq", *map(str, arguments), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=os.environ)
    document: dict[str, Any] = json.loads(done.stdout)
    return document, round(time.perf_counter() - started, 2)


def record(name: str, command: str, result: dict[str, Any]) -> None:
    """Write a result beside the machine, versions and command that it was measured with."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    files.write_json(path, {"trtq": __version__, "machine": machine().to_json(), "command": command, **result})
    print(path)
