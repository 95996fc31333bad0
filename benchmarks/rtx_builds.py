"""Four networks in five precisions through `trtq build --backend rtx`, for SM86 and for five SMs in one engine.

YOLOv7 at 640, YOLOv7-tiny at 320, MobileNetV2 and ResNet-50 at 224, random weights, exported by trtq; PTQ calibrated on
eight images, once more with its float rest in FP16; QAT fine-tuned from it for four iterations of two images, enough to
move every weight, not enough to mean anything for accuracy. Each engine is built twice, each time in fresh processes,
and its bytes are compared. Times are of the builder alone and of the whole command, on a machine that others may use
too; nothing here runs on a GPU.

    python -m benchmarks.rtx_builds [NETWORK ...]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.recording import RESULTS, record, trtq
from trtq import files, layers
from trtq.qdq.fp16 import fp16_file

FIVE = ("sm80", "sm86", "sm89", "sm120", "sm121")
TARGETS = {"sm86": ("sm86",), "five SMs": FIVE}
NETWORKS = {
    "yolov7": (640, "digit-scenes", "detect.*"),
    "yolov7-tiny": (320, "digit-scenes", "detect.*"),
    "mobilenet_v2": (224, "digits", "classifier.*"),
    "resnet50": (224, "digits", "fc"),
}
# Each mode's file, and how it is built.
MODES = {
    "fp32": ("fp32", ("--mode", "fp32")),
    "fp16": ("fp16", ("--mode", "fp16")),
    "ptq": ("ptq", ("--mode", "ptq")),
    "ptq, rest fp16": ("ptq", ("--mode", "ptq", "--half")),
    "qat": ("qat", ("--mode", "qat")),
}
RECIPE = """\
[model]
name = "{name}"

[data]
name = "{data}"
image_size = {size}
train_images = 8
calibration_images = 8
batch = 4

[quantization]
calibrator = "max"
exclude = ["{exclude}"]

[finetune]
iterations = 4
batch = 2
warmup_iterations = 1

[engine]
backends = ["rtx"]
"""


def main() -> None:
    """Measure and record, network by network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    for name in parser.parse_args().networks:
        _keep(f"{name}@{NETWORKS[name][0]}", _measured(name))


def _keep(name: str, measured: dict[str, Any]) -> None:
    """Record a network beside those that are recorded already: all of them take a while."""
    path = RESULTS / "rtx_builds.json"
    networks = files.read_json(path)["networks"] if path.is_file() else {}
    networks[name] = measured
    engines = [one for modes in networks.values() for mode in modes.values() for one in mode["engines"].values()]
    result = {
        "engines": len(engines),
        "all_bytes_equal": all(one["same_bytes_twice"] for one in engines),
        "networks": networks,
    }
    record("rtx_builds", "python -m benchmarks.rtx_builds", result)


def _measured(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = _sources(name, folder)
        return {
            mode: {
                "onnx_bytes": sources[source].stat().st_size,
                "engines": {
                    about: _built(sources[source], words, targets, folder / mode) for about, targets in TARGETS.items()
                },
            }
            for mode, (source, words) in MODES.items()
        }


def _sources(name: str, folder: Path) -> dict[str, Path]:
    """Return the ONNX file of each mode."""
    size, data, exclude = NETWORKS[name]
    recipe = folder / "net.toml"
    ptq, qat = folder / "ptq.safetensors", folder / "qat.safetensors"
    recipe.write_text(RECIPE.format(name=name, size=size, data=data, exclude=exclude))
    found = {mode: folder / f"{mode}.onnx" for mode in ("fp32", "fp16", "ptq", "qat")}
    trtq("export", recipe, "--mode", "fp32", "--output", found["fp32"])
    fp16_file(found["fp32"], found["fp16"])
    trtq("quantize", recipe, "--mode", "ptq", "--output", ptq)
    trtq("finetune", recipe, "--from", ptq, "--output", qat)
    for mode, checkpoint in (("ptq", ptq), ("qat", qat)):
        exported = folder / f"{mode}.exported.onnx"
        trtq("export", recipe, "--mode", mode, "--from", checkpoint, "--output", exported)
        trtq("unify", exported, "-o", found[mode])
    return found


def _built(source: Path, words: tuple[str, ...], targets: tuple[str, ...], folder: Path) -> dict[str, Any]:
    runs = []
    for number in range(2):
        out = folder / f"{source.stem}-{len(targets)}-{number}"
        wanted = [*words, *(word for target in targets for word in ("--target", target))]
        document, seconds = trtq("build", source, "--backend", "rtx", "-o", out, *wanted)
        runs.append({**document["engines"][0], "command_s": seconds, "sha256": files.sha256(out / "engine.rtx.plan")})
    graph = layers.read(out / "layers.json")
    one, other = runs
    signals = trtq("layers", out)[0]
    del signals["file"]
    return {
        "same_bytes_twice": one["sha256"] == other["sha256"],
        "build_s": [run["build_s"] for run in runs],
        "command_s": [run["command_s"] for run in runs],
        "peak_memory_mib": round(max(run["peak_memory_mib"] for run in runs), 1),
        "plan_bytes": one["plan_bytes"],
        "layers": Counter(layer.kind for layer in graph.layers),
        "signals": signals,
    }


if __name__ == "__main__":
    main()
