"""`trtq fp16` beside three other FP16 converters: on float networks, and on the same networks with Q/DQ.

MobileNetV2 and YOLOv7-tiny as the recipes in engines/ export them, ResNet-50 at 224 and YOLOv7 at 640 with random
weights; Q/DQ by `trtq ptq`'s max calibration on eight images. Each converter runs in a process of its own: seconds and
peak memory are the whole process's, Python's start and imports included, and other claims may be measured meanwhile, so
the seconds are rough. Then TensorRT-RTX compiles what came out for
SM86 (its layer table, no times), and ONNX Runtime runs it: SQNR against the file that was converted, of the worst
output, and with a recipe the accuracy of trtq's files. A file whose nodes are out of order or written twice counts as
invalid and is repaired before the rest, which builders do too.

    python -m benchmarks.fp16_pass --modelopt PYTHON  # one with nvidia-modelopt[onnx] and onnxconverter-common
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.recording import RESULTS, ROOT, record, trtq
from trtq import backends, data, ptq, qdq
from trtq.backends import BuildSpec, rtx
from trtq.config import load_recipe
from trtq.errors import BuildError, ModelError
from trtq.layers import kinds
from trtq.layers.graph import LayerGraph
from trtq.pipeline.steps import accuracy
from trtq.qdq.statistics import sqnr_db

RECIPE = """\
[model]
name = "{name}"

[data]
name = "{data}"
image_size = {size}

[quantization]
exclude = ["detect.*"]
"""
RANDOM = {"resnet50": (224, "digits", 4), "yolov7": (640, "digit-scenes", 1)}  # image size, data, compared images
DEMOS = ("mobilenet_v2-digits", "yolov7-tiny-digits")
CALIBRATION_IMAGES = 8
COMPARED_IMAGES = 16
OWN = """
import sys
from pathlib import Path
from trtq.qdq import fp16_file
fp16_file(Path(sys.argv[1]), Path(sys.argv[2]), per_tensor_weights={per_tensor})
"""
ORT = """
import sys, onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(onnx.load(sys.argv[1]), keep_io_types=True), sys.argv[2])
"""
COMMON = """
import sys, onnx
from onnxconverter_common.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(onnx.load(sys.argv[1]), keep_io_types=True), sys.argv[2])
"""
AUTOCAST = """
import sys, onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
onnx.save(convert_to_mixed_precision(sys.argv[1], keep_io_types=True), sys.argv[2])
"""
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(round(time.perf_counter() - start, 2), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, status)
"""
OTHERS = {"onnxruntime.transformers.float16": ORT}
WITH_MODELOPT = {"onnxconverter-common": COMMON, "modelopt autocast": AUTOCAST}
PACKAGES = ("nvidia-modelopt", "onnxconverter-common", "onnxruntime", "onnx")


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelopt", type=Path, required=True, help="a Python interpreter that has the other two")
    parser.add_argument("--only", nargs="*", default=[*DEMOS, *RANDOM], help="measure these; others stay as recorded")
    options = parser.parse_args()
    path = RESULTS / "fp16_pass.json"
    known = json.loads(path.read_text())["networks"] if path.exists() else {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            known[name] = network(name, Path(folder), options.modelopt)
        result = {"their_versions": versions(options.modelopt), "networks": known, "verdict": verdict(known)}
        record("fp16_pass", "python -m benchmarks.fp16_pass --modelopt PYTHON", result)


def network(name: str, folder: Path, modelopt: Path) -> dict[str, Any]:
    recipe, images = recipe_of(name, folder)
    files = {"float": folder / "float.onnx", "Q/DQ": folder / "qdq.onnx"}
    trtq("export", recipe, "--mode", "fp32", "--output", files["float"])
    exclude = ["*detect*"] if "yolo" in name else []
    ptq.quantize_file(files["float"], files["Q/DQ"], images[:CALIBRATION_IMAGES], calibrator="max", exclude=exclude)
    copy_metadata(files["float"], files["Q/DQ"])
    compared = images[CALIBRATION_IMAGES:]
    measure_accuracy = recipe if name in DEMOS else None
    return {form: converted(path, compared, measure_accuracy, folder, modelopt) for form, path in files.items()}


def recipe_of(name: str, folder: Path) -> tuple[Path, npt.NDArray[Any]]:
    """Return the recipe and images (n, 1, ...): the recipe's own for a trained network, random ones for the others."""
    if name in DEMOS:
        recipe = ROOT / "engines" / f"{name}.toml"
        loaded = load_recipe(recipe)
        found = data.load(loaded.data, "validation", loaded.seed, loaded.path.parent)
        images = [found[index].image for index in range(CALIBRATION_IMAGES + COMPARED_IMAGES)]
        return recipe, np.stack(images)[:, None]
    size, source, count = RANDOM[name]
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(name=name, size=size, data=source))
    shape = (CALIBRATION_IMAGES + count, 1, 3, size, size)
    return recipe, np.random.default_rng(0).random(shape, np.float32)


def copy_metadata(source: Path, target: Path) -> None:
    model = qdq.load(target)
    model.metadata_props.update(qdq.load(source).metadata_props)
    qdq.save(model, target)


def converted(
    source: Path, images: npt.NDArray[Any], recipe: Path | None, folder: Path, modelopt: Path
) -> dict[str, Any]:
    codes = {
        "trtq": (sys.executable, OWN.format(per_tensor=False)),
        "trtq, one weight scale": (sys.executable, OWN.format(per_tensor=True)),
        **{name: (sys.executable, code) for name, code in OTHERS.items()},
        **{name: (str(modelopt), code) for name, code in WITH_MODELOPT.items()},
    }
    if source.stem == "float":
        del codes["trtq, one weight scale"]
    reference = run(source, images)
    rows = {"not converted": outcome(source, images, reference, recipe, folder)}
    for name, (python, code) in codes.items():
        target = folder / "converted.onnx"
        target.unlink(missing_ok=True)
        cost = measured([python, "-W", "ignore", "-c", code, str(source), str(target)])
        rows[name] = dict(cost)
        if target.exists():
            own = recipe if name.startswith("trtq") else None
            rows[name] |= outcome(target, images, reference, own, folder)
        print(source.stem, name, json.dumps(rows[name]), file=sys.stderr, flush=True)
    return rows


def measured(command: list[str]) -> dict[str, Any]:
    """Return the seconds and peak memory of a process, and the last line that it wrote where it failed."""
    # Through a small process: a child counts the memory of the one that it was forked from.
    done = subprocess.run(
        [sys.executable, "-S", "-c", WATCH, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, peak_kib, status = done.stdout.split()
    cost: dict[str, Any] = {"s": float(seconds), "peak_mib": round(int(peak_kib) / 1024, 1)}
    return cost if status == "0" else {**cost, "failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}


def outcome(
    path: Path, images: npt.NDArray[Any], reference: Mapping[str, npt.NDArray[Any]], recipe: Path | None, folder: Path
) -> dict[str, Any]:
    valid, model = is_valid(path), onnx.load(path)
    if valid is not True:
        repair(model, path)
    row: dict[str, Any] = {
        "onnx_mib": round(path.stat().st_size / 2**20, 2),
        "opset": max(one.version for one in model.opset_import if not one.domain),
        "casts": sum(node.op_type == "Cast" for node in model.graph.node),
        "valid": valid,
        "rtx": built(path, folder),
    }
    try:
        found = run(path, images)
        row["sqnr_db"] = round(min(ratio(values, found[name]) for name, values in reference.items()), 1)
        row["accuracy"] = None if recipe is None else accuracy(load_recipe(recipe), with_metadata(path, folder))
    except ModelError as error:
        row["onnxruntime"] = str(error).partition(": ")[2][:200]
    return row


def repair(model: onnx.ModelProto, path: Path) -> None:
    """Drop nodes that write what another writes already, equal casts of one constant, and sort the rest."""
    written: set[str] = set()
    for node in list(model.graph.node):
        if set(node.output) & written:
            model.graph.node.remove(node)
        written.update(node.output)
    onnx.save(model, path)
    qdq.save(qdq.load(path), path)


def is_valid(path: Path) -> bool | str:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().splitlines()[0][:200]
    return True


def with_metadata(path: Path, folder: Path) -> Path:
    copy = folder / "with-metadata.onnx"
    model = qdq.load(path)
    model.metadata_props.update(qdq.load(folder / "float.onnx").metadata_props)
    qdq.save(model, copy)
    return copy


def run(path: Path, images: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    session = backends.runner("ort").load(path, threads=2)
    found = [session.run({session.inputs[0].name: image}) for image in images]
    return {name: np.stack([one[name] for one in found]).astype(np.float64) for name in found[0]}


def ratio(values: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    return sqnr_db(float(np.square(values).mean()), float(np.square(values - found).mean()))


def built(path: Path, folder: Path) -> dict[str, Any] | str:
    """Return TensorRT-RTX's layer table in figures, or why it does not build."""
    try:
        graph = rtx.build(BuildSpec(path), folder / rtx.PLAN_NAME).layers
    except (BuildError, ModelError) as error:
        return str(error).partition(": ")[2][:200]
    assert graph is not None
    return {
        "convolutions": dict(sorted(Counter(map(about, filter(kinds.is_compute, graph.layers))).items())),
        "tensors_written": dict(sorted(written(graph).items())),
        "layers": graph.signals.layers,
        "traffic_mb": round((graph.signals.traffic_bytes or 0) / 1e6, 2),
    }


def about(layer: Any) -> str:
    inside = "int8" if kinds.runs_int8(layer) else layer.inputs[0].dtype
    return f"{inside} to {layer.outputs[0].dtype}"


def written(graph: LayerGraph) -> Counter[str]:
    return Counter(tensor.dtype for layer in graph.layers for tensor in layer.outputs)


def versions(modelopt: Path) -> dict[str, str]:
    code = "import sys\nfrom importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
    done = subprocess.run([modelopt, "-c", code, *PACKAGES], capture_output=True, text=True, check=True)
    return dict(zip(PACKAGES, done.stdout.split(), strict=True))


def verdict(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Return, for each converter, in how many of the files its result is valid, builds and runs, and the sums."""
    found: dict[str, Counter[str]] = {}
    for forms in networks.values():
        for form, rows in forms.items():
            for name, row in rows.items():
                if name == "not converted":
                    continue
                counts = found.setdefault(f"{form}: {name}", Counter())
                counts["files"] += 1
                counts["valid"] += row.get("valid") is True
                counts["built"] += isinstance(row.get("rtx"), dict)
                counts["run_by_onnxruntime"] += "sqnr_db" in row
                counts["traffic_kb"] += (
                    round(1000 * row["rtx"]["traffic_mb"]) if isinstance(row.get("rtx"), dict) else 0
                )
                counts["ms"] += round(1000 * row["s"])
    return {name: dict(counts) for name, counts in found.items()}


if __name__ == "__main__":
    main()
