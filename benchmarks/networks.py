"""Networks that several claims look at, made once: YOLOv7 and YOLOv7-tiny at full size, and the two of the demo.

The full-size ones have random weights, their BatchNorm settled on a few images, so they show structure and cost, not
accuracy. Naive: one quantizer for each convolution's input, mse calibration on eight images.

Each is made where it is asked for first: in the folder that TRTQ_NETWORKS names, which `benchmarks.suite` keeps for one
run, else in the caller's own. A claim that runs beside another one waits while that one makes it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.recording import ROOT, trtq
from trtq import files

DEMOS = ("mobilenet_v2-digits", "yolov7-tiny-digits")
DEMO_MODES = "fp16,ptq,qat"
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


def demo(name: str, folder: Path) -> Path:
    """Return the recipe of a demo network, its modes built as it is shipped and in ONNX Runtime's native form too."""
    path = demo_folder(folder) / f"{name}.toml"
    if not path.is_file():
        copy_demo(name, path.parent)
    text = path.read_text(encoding="utf-8").replace('["rtx", "ort"]', '["rtx", "ort", "ort-native"]')
    files.write_text(path, text)
    trtq("build", path, "--mode", DEMO_MODES)
    return path


def demo_folder(folder: Path) -> Path:
    """Return where the demo's recipes are kept beside what is built of them."""
    return _place("demo", folder)


def copy_demo(name: str, folder: Path) -> Path:
    """Copy a demo's recipe and checkpoint; return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("safetensors", "toml"):
        shutil.copy(ROOT / "engines" / f"{name}.{suffix}", folder)
    return folder / f"{name}.toml"


def exported(name: str, mode: str, folder: Path, weights: str = "int8") -> Path:
    """Return a network's ONNX file; mode: `fp32` or `naive`; weights: `int8`, or `float` before Q and DQ."""
    place = _place(name, folder)
    model = place / f"{mode}-{weights}" / "model.onnx"
    with files.locked(place):
        if not model.is_file():
            recipe = place / f"{weights}.toml"
            files.write_text(recipe, RECIPE.format(name=name, size=NETWORKS[name]) + f'weights = "{weights}"\n')
            source = () if mode == "fp32" else ("--from", _checkpoint(recipe, mode))
            trtq("export", recipe, "--mode", mode, *source, "--output", model)
    return model


def compiled(name: str, mode: str, folder: Path) -> Path:
    """Return the folder of a network's ONNX file, with int8 weights, and of its engine by TensorRT-RTX for SM86."""
    model = exported(name, mode, folder)
    trtq("build", model, "--backend", "rtx", "--output", model.parent)  # says so where the engine is there
    return model.parent


def _checkpoint(recipe: Path, mode: str) -> Path:
    checkpoint = recipe.with_name(f"{mode}.safetensors")
    if not checkpoint.is_file():
        trtq("quantize", recipe, "--mode", mode, "--output", checkpoint)
    return checkpoint


def _place(name: str, folder: Path) -> Path:
    return Path(os.environ.get("TRTQ_NETWORKS") or folder) / name
