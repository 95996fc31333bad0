"""A demo network twice from nothing: accuracy, signals and time of every mode, and that both runs give the same bytes.

python -m benchmarks.demo [NAME]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import networks
from benchmarks.recording import record, trtq
from trtq import files

DEFAULT = "yolov7-tiny-digits"


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folders = networks.demo_folder(Path(first)), Path(second)
        runs = [build(name, folder) for folder in folders]
        one, other = (folder / name for folder in folders)
        diff, _ = trtq("diff", one / "naive", one / "ptq")
        result = {
            "recipe": f"engines/{name}.toml",
            "seconds": [run["seconds"] for run in runs],
            "modes": runs[0]["modes"],
            "double_writes_named_by_diff": named(diff, "double write"),
            "naive_to_ptq_aligned_share": diff["aligned_share"],
            "identical_files": identical(one, other),
        }
    record(name, f"python -m benchmarks.demo {name}", result)


def build(name: str, folder: Path) -> dict[str, Any]:
    if (folder / name).exists():
        raise FileExistsError(f"{folder / name} is there already; this is about a build from nothing")
    document, seconds = trtq("build", networks.copy_demo(name, folder), "--mode", networks.DEMO_MODES)
    return {"modes": document["modes"], "seconds": seconds}


def named(diff: dict[str, Any], kind: str) -> list[str]:
    return [one["cause"] for one in diff["differences"] if one["class"] == kind]


def identical(one: Path, other: Path) -> dict[str, bool]:
    """Return for every ONNX file, engine and checkpoint of the first run whether the second has the same bytes."""
    artefacts = [path for path in sorted(one.rglob("*")) if path.suffix in (".onnx", ".plan", ".safetensors")]
    return {
        str(path.relative_to(one)): files.sha256(path) == files.sha256(other / path.relative_to(one))
        for path in artefacts
    }


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
