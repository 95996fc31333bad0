"""The demo twice from nothing: accuracy, signals and time of every mode, and that both runs give the same bytes.

python -m benchmarks.demo [RECIPE]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recording import ROOT, record, trtq
from trtq import files

DEFAULT = "engines/yolov7-tiny-digits.toml"
MODES = "fp16,ptq,qat"


def main(recipe: str) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        runs = [build(ROOT / recipe, Path(folder)) for folder in (first, second)]
        one, other = (Path(folder) / Path(recipe).stem for folder in (first, second))
        diff, _ = trtq("diff", one / "naive", one / "ptq")
        result = {
            "recipe": recipe,
            "seconds": [run["seconds"] for run in runs],
            "modes": runs[0]["modes"],
            "double_writes_named_by_diff": named(diff, "double write"),
            "naive_to_ptq_aligned_share": diff["aligned_share"],
            "identical_files": identical(one, other),
        }
    record(Path(recipe).stem, f"python -m benchmarks.demo {recipe}", result)


def build(recipe: Path, folder: Path) -> dict[str, Any]:
    shutil.copy(recipe, folder)
    for checkpoint in recipe.parent.glob(f"{recipe.stem}.safetensors"):
        shutil.copy(checkpoint, folder)
    document, seconds = trtq("build", folder / recipe.name, "--mode", MODES)
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
