"""Naive and trtq's placement at real scale: YOLOv7 at 640 px and YOLOv7-tiny at 320 px, compiled for SM86.

Weights are random (BatchNorm settled on a few images), so this shows structure, not accuracy. Naive: one quantizer
per convolution input, calibrated on the same images.

    python -m benchmarks.placement
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recording import record, trtq

NETWORKS = {"yolov7": 640, "yolov7-tiny": 320}
RECIPE = """\
[model]
name = "{name}"

[data]
name = "digit-scenes"
image_size = {size}
calibration_images = 8
validation_images = 1
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
        document, seconds = trtq("build", recipe, "--mode", "ptq")
        diff, diff_seconds = trtq("diff", Path(folder) / "net" / "naive", Path(folder) / "net" / "ptq")
    modes = document["modes"]
    return {
        "seconds": seconds,
        "diff_seconds": diff_seconds,
        "aligned_share": diff["aligned_share"],
        "differences": len(diff["differences"]),
        **{mode: modes[mode]["signals"] for mode in ("fp32", "naive", "ptq")},
        **{f"{mode}_predicted_conversions": modes[mode]["predicted_conversions"] for mode in ("naive", "ptq")},
    }


if __name__ == "__main__":
    main()
