"""Naive and trtq's placement at real scale: YOLOv7 at 640 px and YOLOv7-tiny at 320 px, compiled for SM86.

Weights are random (BatchNorm settled on a few images), so this shows structure, not accuracy. Naive: one quantizer
per convolution input, calibrated on the same images.

    python -m benchmarks.placement
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recording import compile_mode, record, trtq

NETWORKS = {"yolov7": 640, "yolov7-tiny": 320}
RECIPE = """\
[model]
name = "{name}"

[data]
name = "digit-scenes"
image_size = {size}
calibration_images = 8
batch = 4

[quantization]
exclude = ["detect.*"]

[engine]
backends = ["rtx"]
"""


def main() -> None:
    result = {f"{name}@{size}": measure(name, size) for name, size in NETWORKS.items()}
    record("placement", "python -m benchmarks.placement", {"networks": result})


def measure(name: str, size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "net.toml"
        recipe.write_text(RECIPE.format(name=name, size=size))
        built = {mode: compile_mode(recipe, mode, Path(folder)) for mode in ("fp32", "naive", "ptq")}
        signals = {mode: trtq("layers", path)[0] for mode, path in built.items()}
        diff, diff_s = trtq("diff", built["naive"], built["ptq"])
        onnx_bytes = {mode: (path / "model.onnx").stat().st_size for mode, path in built.items()}
    return {
        "signals": signals,
        "onnx_bytes": onnx_bytes,
        "aligned_share": diff["aligned_share"],
        "double_writes_named_by_diff": sum(one["class"] == "double write" for one in diff["differences"]),
        "diff_s": diff_s,
    }


if __name__ == "__main__":
    main()
