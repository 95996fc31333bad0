"""`trtq ptq` beside nvidia-modelopt's ONNX PTQ, on the same float files and the same calibration images.

Five networks: the float file in ../shared/data/onnx/producers (random weights, random images), trtq's two demo
networks (trained, digits), and the same two at their published width with random weights on larger images. Each
quantization runs in a fresh process, interpreter start and imports included. trtq's default and modelopt's faster
calibrator are timed: in turn over ROUNDS rounds, medians of time and peak memory; the others run once. Then each file
is built for SM86, its findings are counted, and its outputs on held-out images are compared with the float file's: SQNR
of the worst output, and accuracy where the network is trained. ONNX Runtime takes two threads in both tools; each
writes weights as its default does.

    python -m benchmarks.ptq_peers --modelopt PYTHON   # a Python with nvidia-modelopt[onnx]
"""

from __future__ import annotations

import argparse
import glob
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from benchmarks.networks import RECIPE
from benchmarks.producers import PRODUCERS, built, outputs, quantized_convolutions, sqnr_db
from benchmarks.recording import RESULTS, ROOT, record, trtq
from benchmarks.unify_cost import measured
from trtq import data, qdq, rules
from trtq.backends import BuildSpec, rtx
from trtq.config import load_recipe
from trtq.pipeline.steps import accuracy
from trtq.qdq import reading

ROUNDS = 3
THREADS = 2
CALIBRATION_IMAGES = 64
COMPARED_IMAGES = 64
LARGE_IMAGES = 8
MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
quantize(
    sys.argv[1], quantize_mode="int8", calibration_method=sys.argv[4], output_path=sys.argv[2],
    calibration_data=np.load(sys.argv[3]), calibration_eps=["cpu"], high_precision_dtype="fp32", log_level="ERROR",
)
"""
CALIBRATORS = {"modelopt": ("entropy", "max"), "trtq": ("mse", "max", "entropy", "percentile")}
TIMED = ("trtq mse", "modelopt max")
METRICS = ("top1", "map50_95")
HIGHER_IS_BETTER = ("convolutions_quantized", "worst_sqnr_db", *METRICS)
WHY = (
    "requantizes: in front of an average pool between int8 layers trtq puts a pair, for which TensorRT has an int8"
    " pooling kernel; TensorRT-RTX rounds before and behind the average in one kernel, which counts as one",
    "entropy: trtq's is pytorch-quantization's, on 2048 to 4096 bins; modelopt's is ONNX Runtime's on 128 bins, which"
    " hardly ever clips. Where a few magnitudes hold most values the former can cut away nearly all the others; trtq"
    " names the tensor, and its default is mse",
    "map50_95: the float network has 0.7431, so both are within chance of it; SQNR is finer. modelopt leaves"
    " four convolutions of few channels float; the row that leaves the same ones float compares like with like",
    "layers: trtq quantizes the classifier's Gemm too, which modelopt leaves float",
)
SIGNALS = ("layers", "double_writes", "requantizes", "float_writes", "traffic_bytes")


@dataclass(frozen=True)
class Network:
    """A float file, images (n, ...) to calibrate on and others to compare on, and the recipe that has its accuracy."""

    model: Path
    calibration: npt.NDArray[Any]
    compared: npt.NDArray[Any]
    recipe: Path | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modelopt", type=Path, required=True, help="a Python interpreter that has nvidia-modelopt")
    parser.add_argument("--only", nargs="*", help="measure these networks; the others keep what was recorded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks = all_networks(Path(folder))
        for name in options.only or networks:
            keep(name, beside(networks[name], options.modelopt, Path(folder)), options.modelopt)


def keep(name: str, result: dict[str, Any], modelopt: Path) -> None:
    """Record one network's result beside those of the others."""
    path = RESULTS / "ptq_peers.json"
    known = json.loads(path.read_text())["networks"] if path.exists() else {}
    networks = {one: {**found, **judged(found["quantized"])} for one, found in {**known, name: result}.items()}
    record(
        "ptq_peers",
        "python -m benchmarks.ptq_peers --modelopt PYTHON",
        {
            "modelopt": version_of(modelopt, "nvidia-modelopt"),
            "rounds": ROUNDS,
            "where_not_better": where_not(networks),
            "why": WHY,
            "networks": networks,
        },
    )


def where_not(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return each figure in which trtq's default is behind modelopt's default, or its better calibrator."""
    found: list[str] = []
    for name, result in networks.items():
        for figure, (own, *others) in result["verdict"].items():
            sign = -1 if figure in HIGHER_IS_BETTER else 1
            found.extend(f"{name}: {figure} {own} against {other}" for other in set(others) if sign * (own - other) > 0)
    return found


def all_networks(folder: Path) -> dict[str, Network]:
    random = np.random.default_rng(0)
    shapes = {"fork-float": (3, 64, 64), "mobilenet_v2@224": (3, 224, 224), "yolov7-tiny@320": (3, 320, 320)}
    images = {name: random.random((2 * LARGE_IMAGES, *shape), np.float32) for name, shape in shapes.items()}
    images["fork-float"] = random.random((CALIBRATION_IMAGES + COMPARED_IMAGES, 3, 64, 64), np.float32)
    found = {"fork-float": halves(PRODUCERS / "fork-float.onnx", images["fork-float"], folder)}
    for name in ("mobilenet_v2-digits", "yolov7-tiny-digits"):
        recipe = ROOT / "engines" / f"{name}.toml"
        found[name] = Network(
            exported(recipe, folder / f"{name}.onnx"),
            samples(recipe, "calibration", CALIBRATION_IMAGES),
            samples(recipe, "validation", COMPARED_IMAGES),
            recipe,
        )
    for name in ("mobilenet_v2@224", "yolov7-tiny@320"):
        zoo, _, size = name.partition("@")
        recipe = folder / f"{zoo}.toml"
        recipe.write_text(RECIPE.format(name=zoo, size=size).replace('exclude = ["detect.*"]', ""))
        found[name] = halves(exported(recipe, folder / f"{name}.onnx"), images[name], folder)
    return found


def halves(model: Path, images: npt.NDArray[Any], folder: Path) -> Network:
    """Return a network in `folder` that is calibrated on the first half of `images` and compared on the second."""
    copy = folder / model.name
    copy.write_bytes(model.read_bytes())
    calibration, compared = np.split(images, 2)
    return Network(copy, calibration, compared)


def exported(recipe: Path, target: Path) -> Path:
    trtq("export", recipe, "--mode", "fp32", "--output", target)
    return target


def samples(recipe: Path, split: data.Split, count: int) -> npt.NDArray[Any]:
    loaded = load_recipe(recipe)
    found = data.load(loaded.data, split, loaded.seed, loaded.path.parent)
    return np.stack([found[index].image for index in range(count)])


def beside(network: Network, modelopt: Path, folder: Path) -> dict[str, Any]:
    """Quantize one network with each tool and calibrator, in turn; return what it cost and what came out."""
    images = folder / "images.npy"
    np.save(images, network.calibration)
    runs = {
        f"{tool} {calibrator}": (command(tool, calibrator, modelopt, network.model, images, target), target)
        for tool, calibrators in CALIBRATORS.items()
        for calibrator in calibrators
        for target in [folder / f"{network.model.stem}-{tool}-{calibrator}.onnx"]
    }
    rounds = [
        {name: measured(line) for name, (line, _) in runs.items() if name in TIMED or not number}
        for number in range(ROUNDS)
    ]
    single = [network.compared[index : index + 1] for index in range(len(network.compared))]
    reference = outputs(network.model, single)
    rows = {}
    for name, (_, target) in runs.items():
        raw = [one[name] for one in rounds if name in one]
        cost = {key: round(statistics.median(one[key] for one in raw), 2) for key in ("s", "peak_mib")}
        rows[name] = {**cost, "raw": raw, **outcome(target, network, reference, single, folder)}
        print(network.model.stem, name, rows[name], file=sys.stderr, flush=True)
    left = [node.name or "" for node in qdq.load(runs["modelopt entropy"][1]).graph if is_float_convolution(node)]
    if left:
        line, target = runs["trtq mse"]
        measured([*line, *(word for name in left for word in ("--exclude", glob.escape(name)))])
        rows["trtq mse, modelopt's layers float"] = outcome(target, network, reference, single, folder)
    return {
        "left_float_by_modelopt": left,
        "convolutions": sum(node.op_type == "Conv" for node in qdq.load(network.model).graph),
        "calibration_images": len(network.calibration),
        "float_accuracy": accuracy_of(network.model, network, folder),
        "quantized": rows,
    }


def is_float_convolution(node: ir.Node) -> bool:
    return node.op_type == "Conv" and not all(
        reading.is_dequantize(source.producer())
        for source in map(reading.source, node.inputs[:2])
        if source is not None
    )


def command(tool: str, calibrator: str, modelopt: Path, model: Path, images: Path, target: Path) -> list[str]:
    if tool == "modelopt":
        return [str(modelopt), "-W", "ignore", "-c", MODELOPT, str(model), str(target), str(images), calibrator]
    options = ["--calibration", str(images), "-o", str(target), "--calibrator", calibrator, "--threads", str(THREADS)]
    return [sys.executable, "-m", "trtq", "ptq", str(model), *options]


def outcome(
    path: Path,
    network: Network,
    reference: Mapping[str, npt.NDArray[Any]],
    images: list[npt.NDArray[Any]],
    folder: Path,
) -> dict[str, Any]:
    """Return what a quantized file holds, what TensorRT-RTX makes of it, and how near it is to the float file."""
    found = outputs(path, images)
    engine = rtx.build(BuildSpec(path), folder / "signals" / rtx.PLAN_NAME)
    assert engine.layers is not None
    signals = engine.layers.signals
    return {
        "convolutions_quantized": quantized_convolutions(path),
        "built": built(path, folder),
        **{name: getattr(signals, name) for name in SIGNALS},
        "findings": dict(sorted(Counter(one.code for one in rules.lint(qdq.load(path))).items())),
        "scale_groups_differing": sum(not group.agrees for group in qdq.groups(qdq.load(path))),
        "sqnr_db": {name: sqnr_db(values, found[name]) for name, values in reference.items()},
        "accuracy": accuracy_of(path, network, folder),
    }


def accuracy_of(path: Path, network: Network, folder: Path) -> dict[str, Any] | None:
    """Return the accuracy of a file, with the float file's metadata: they say how boxes are decoded."""
    if network.recipe is None:
        return None
    model = qdq.load(path)
    model.metadata_props.update(qdq.load(network.model).metadata_props)
    qdq.save(model, folder / "with-metadata.onnx")
    return accuracy(load_recipe(network.recipe), folder / "with-metadata.onnx")


def judged(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return trtq's figures beside modelopt's, and those of which less is better as ratios."""
    found = verdict(rows)
    ratios = {name: round(found[name][0] / found[name][1], 3) for name in ("s", "peak_mib", "traffic_bytes")}
    return {"verdict": found, "of_modelopt": ratios}


def verdict(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return trtq's default beside modelopt's default, figure by figure, and beside its better calibrator."""
    own, default = rows["trtq mse"], rows["modelopt entropy"]
    peers = [row for name, row in rows.items() if name.startswith("modelopt")]
    found = {
        "convolutions_quantized": [own["convolutions_quantized"], default["convolutions_quantized"]],
        "float_convolutions": [row["built"]["float_convolutions"] for row in (own, default)],
        "double_writes": [own["double_writes"], default["double_writes"]],
        "requantizes": [own["requantizes"], default["requantizes"]],
        "traffic_bytes": [own["traffic_bytes"], default["traffic_bytes"]],
        "worst_sqnr_db": [worst(own), worst(default), max(map(worst, peers))],
        "s": [own["s"], min(row["s"] for row in peers)],
        "peak_mib": [own["peak_mib"], min(row["peak_mib"] for row in peers)],
    }
    if own["accuracy"] is not None:
        (metric,) = set(METRICS).intersection(own["accuracy"])
        found[metric] = [round(row["accuracy"][metric], 4) for row in (own, default)]
    return found


def worst(row: Mapping[str, Any]) -> float:
    return min(float(value) for value in row["sqnr_db"].values() if value is not None)


def version_of(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
