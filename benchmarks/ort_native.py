"""ONNX Runtime on this CPU: float32, Q/DQ files as exported, the native form, and onnxruntime.quantization's own flow.

Four networks: the two demo recipes as they are shipped, whose accuracy on digits is measured in every form, and the
same two at their published width on larger images, for speed: random weights, QAT of one iteration. All forms of one
network run in turn in one process, one thread, each with every optimization that ONNX Runtime has for this CPU. ONNX
Runtime's own flow is what its documentation recommends for x86 with VNNI: pre-processing, uint8 activations, int8
weights, Q/DQ, MinMax over the same images; per channel for accuracy, per tensor for speed.

Times are taken twice: the CPU time of the one thread, which what else runs on the machine does not lengthen and which
all claims are about, and the time on the wall, which a busy machine does; the load average stands beside them.

    python -m benchmarks.ort_native
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks import networks
from benchmarks.producers import Images, sqnr_db
from benchmarks.recording import ROOT, record, trtq
from trtq import bench, data, files
from trtq.backends import Session, ort, ort_native
from trtq.backends.ort_profile import profile
from trtq.config import Recipe, load_recipe
from trtq.machine import machine
from trtq.pipeline.steps import accuracy

BACKENDS = '["ort", "ort-native"]'
# What the published width changes in a shipped recipe: no checkpoint fits it, and nothing is to be learnt.
RANDOM = {
    r"^checkpoint = .*$": "",
    r"^train_images = .*$": "train_images = 16",
    r"^calibration_images = .*$": "calibration_images = 8",
    r"^validation_images = .*$": "validation_images = 16",
    r"^calibrator = .*$": 'calibrator = "max"',
    r"^iterations = .*$": "iterations = 1",
    r"^warmup_iterations = .*$": "warmup_iterations = 0",
    r"^batch = (16|32)\b.*$": "batch = 4",
}
FULL: dict[str, tuple[str, dict[str, str]]] = {
    "mobilenet_v2-224": (
        "mobilenet_v2-digits",
        {r"^width_mult = .*$": "width_mult = 1.0", r"^image_size = .*$": "image_size = 224"},
    ),
    "yolov7-tiny-320": (
        "yolov7-tiny-digits",
        {r"^width = .*$": "width = 1.0", r"^image_size = .*$": "image_size = 320"},
    ),
}
OWN = {"onnxruntime per channel": True, "onnxruntime per tensor": False}
NATIVE = ("native ptq", "native qat")
ITERATIONS = {"mobilenet_v2-digits": 300, "yolov7-tiny-digits": 200, "mobilenet_v2-224": 200, "yolov7-tiny-320": 60}
CLOCKS = {"cpu": time.thread_time_ns, "wall": time.perf_counter_ns}
WARMUP = 10
COMPARED_IMAGES = 16
FASTER_THAN_FLOAT, SLOWER_THAN_OWN, ACCURACY_POINTS = 2.0, 1.2, 0.5


def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime advises pre-processing where it sees its own file again
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of what is built, kept for another run; a temporary one else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        recipes = {name: networks.demo(name, work) for name in networks.DEMOS}
        recipes |= {name: at_published_width(name, work) for name in FULL}
        found = {name: network(load_recipe(path), work) for name, path in recipes.items()}
    record("ort_native", "python -m benchmarks.ort_native", {"holds": holds(found), "networks": found})


def at_published_width(name: str, work: Path) -> Path:
    """Write and build a recipe in ONNX Runtime's two forms, as little trained and calibrated as will do."""
    source, changes = FULL[name]
    text = (ROOT / "engines" / f"{source}.toml").read_text(encoding="utf-8")
    for pattern, line in {r"^backends = .*$": f"backends = {BACKENDS}", **RANDOM, **changes}.items():
        text, found = re.subn(pattern, line, text, flags=re.MULTILINE)
        assert found, f"{source}: no line is {pattern}"
    path = work / f"{name}.toml"
    files.write_text(path, text)
    trtq("build", path, "--mode", "ptq,qat")
    return path


def network(built: Recipe, work: Path) -> dict[str, Any]:
    forms = {
        "float32": built.folder / "fp32" / "model.onnx",
        "as exported ptq": built.folder / "ptq" / "model.onnx",
        "as exported qat": built.folder / "qat" / "model.onnx",
        "native ptq": built.folder / "ptq" / ort_native.PLAN_NAME,
        "native qat": built.folder / "qat" / ort_native.PLAN_NAME,
        **{name: own(built, forms_path(work, built, name), per_channel) for name, per_channel in OWN.items()},
    }
    images = calibration(built)
    sessions: dict[str, Session] = {name: ort_native.load(path, threads=1) for name, path in forms.items()}
    feeds = {sessions["float32"].inputs[0].name: images[0]}
    loads = [os.getloadavg()[0]]
    times = {kind: timed(sessions, feeds, clock, ITERATIONS[built.name]) for kind, clock in CLOCKS.items()}
    loads.append(os.getloadavg()[0])
    return {
        "batch": len(images[0]),
        "image_size": built.data.image_size,
        "load_average": [round(load, 2) for load in loads],
        **times,
        "accuracy": {name: measured(built, name, path) for name, path in forms.items()}
        if built.name in networks.DEMOS
        else None,
        "sqnr_db": sqnr(sessions, built),
        "operators": {name: operators(path, feeds) for name, path in forms.items()},
    }


def forms_path(work: Path, built: Recipe, name: str) -> Path:
    return work / f"{built.name}.{name.replace(' ', '-')}.onnx"


def own(built: Recipe, target: Path, per_channel: bool) -> Path:
    """Quantize the float network by onnxruntime.quantization's own recommended flow."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(built.folder / "fp32" / "model.onnx", prepared)
    name = ort.load(prepared).inputs[0].name
    quantize_static(
        prepared,
        target,
        Images(name, calibration(built)),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target


def calibration(built: Recipe) -> list[npt.NDArray[Any]]:
    """Return the recipe's calibration images in the batches that the network takes."""
    images = data.load(built.data, "calibration", built.seed, built.path.parent)
    size = built.engine.batch
    count = len(images) - len(images) % size
    return [np.stack([images[start + place].image for place in range(size)]) for start in range(0, count, size)]


def timed(
    sessions: dict[str, Session], feeds: dict[str, npt.NDArray[Any]], clock: Callable[[], int], iterations: int
) -> dict[str, Any]:
    """Run all forms in turn; return their raw times by one clock, and what follows from them."""
    found = bench.interleaved(
        sessions,
        feeds,
        warmup=WARMUP,
        iterations=iterations,
        backends=dict.fromkeys(sessions, "ort"),
        machine=machine().to_json(),
        clock=clock,
    )
    return {
        "median_us": {name: round(one.median_us, 1) for name, one in found.items()},
        "times_as_fast_as_float32": {
            name: speed(found["float32"], one) for name, one in found.items() if name != "float32"
        },
        "times_us": {name: [round(value, 1) for value in one.times_us] for name, one in found.items()},
    }


def speed(reference: bench.BenchResult, candidate: bench.BenchResult) -> dict[str, float]:
    """Return how many times as fast as the reference the candidate is, with its 95 % interval."""
    found = bench.compare(reference, candidate)
    return {"ratio": round(1 / found.ratio, 3), "low": round(1 / found.high, 3), "high": round(1 / found.low, 3)}


def measured(built: Recipe, name: str, path: Path) -> dict[str, Any]:
    """Return the accuracy on all validation images: Q/DQ computed as the file says, or with integer kernels."""
    return accuracy(built, path, runner="ort" if name.startswith("as exported") or name == "float32" else "ort-native")


def sqnr(sessions: dict[str, Session], built: Recipe) -> dict[str, float | None]:
    """Return each form's outputs against those of float32, all outputs together, in dB."""
    images = data.load(built.data, "validation", built.seed, built.path.parent)
    batches = [images[index].image[None] for index in range(min(COMPARED_IMAGES, len(images)))]
    found = {name: outputs(session, batches) for name, session in sessions.items()}
    return {name: sqnr_db(found["float32"], one) for name, one in found.items() if name != "float32"}


def outputs(session: Session, batches: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    name = session.inputs[0].name
    return np.concatenate([np.ravel(one) for batch in batches for one in session.run({name: batch}).values()])


def operators(path: Path, feeds: dict[str, npt.NDArray[Any]]) -> dict[str, dict[str, float]]:
    """Return what ONNX Runtime runs after its fusions: by operator how many, and their µs under its profiler."""
    nodes = profile(path, feeds)
    counts = Counter(node.operator for node in nodes)
    return {
        kind: {"nodes": count, "us": round(sum(node.median_us for node in nodes if node.operator == kind), 1)}
        for kind, count in counts.most_common()
    }


def holds(networks: dict[str, Any]) -> dict[str, bool]:
    wide, narrow = networks["mobilenet_v2-224"], networks["mobilenet_v2-digits"]
    best_own = min(wide["cpu"]["median_us"][name] for name in OWN)
    faster = {name: one["cpu"]["times_as_fast_as_float32"] for name, one in networks.items()}
    return {
        "MobileNetV2 at its published width: native at least 2 times as fast as float32": all(
            faster["mobilenet_v2-224"][name]["ratio"] >= FASTER_THAN_FLOAT for name in NATIVE
        ),
        "MobileNetV2 at its published width: native no slower than 1.2 times onnxruntime's own": all(
            wide["cpu"]["median_us"][name] <= SLOWER_THAN_OWN * best_own for name in NATIVE
        ),
        "MobileNetV2 on digits: native within 0.5 points of the file as exported": within_points(narrow, "top1"),
        "YOLOv7-tiny at its published width: native faster than float32": all(
            faster["yolov7-tiny-320"][name]["low"] > 1 for name in NATIVE
        ),
        "YOLOv7-tiny on digits: native within 0.5 points mAP50-95 of the file as exported": within_points(
            networks["yolov7-tiny-digits"], "map50_95"
        ),
    }


def within_points(one: dict[str, Any], metric: str) -> bool:
    found = one["accuracy"]
    return all(
        abs(found[f"native {mode}"][metric] - found[f"as exported {mode}"][metric]) * 100 <= ACCURACY_POINTS
        for mode in ("ptq", "qat")
    )


if __name__ == "__main__":
    main()
