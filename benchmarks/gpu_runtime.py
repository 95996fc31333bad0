"""TensorRT-RTX engines on a real GPU: which plans load on it, what they compute, how long they take.

In two steps, because the machine with the GPU needs neither torch nor ONNX Runtime nor any network:

    python -m benchmarks.gpu_runtime --prepare FOLDER            # anywhere: ONNX files, samples, reference outputs
    python -m benchmarks.gpu_runtime --models FOLDER --out FILE  # on the GPU: builds, loads, runs, compares, times

Every case runs in a process of its own and is written at once: a crash, a refusal or the end of the time costs that
case alone. The reference is ONNX Runtime on the CPU that prepared, on the same file and on the float file. The result
is kept as benchmarks/results/gpu_runtime.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtq import __version__, files

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("mobilenet_v2-digits", "yolov7-tiny-digits")
MODES = ("fp32", "fp16", "ptq")
SMALL_SAMPLES = 8
IMAGES = 4
SMALL_SIZE, SMALL_CHANNELS, SMALL_LAYERS = 32, 32, 4
CURRENT = "current"
AHEAD = ("sm80", "sm86", "sm89", "sm120", "sm121")
FIVE = "+".join(AHEAD)
SMALL_TARGETS = (CURRENT, *AHEAD, FIVE)
TARGETS = (CURRENT, "sm80", "sm89")
BROKEN = ("junk", "cut", "damaged")
CASE_S = 100.0
BUDGET_S = 165.0
BUILDERS = 8
KEPT_OUTPUT = 3000
INDEX = "index.json"

Arrays = dict[str, npt.NDArray[Any]]


def prepare(folder: Path) -> None:
    """Write every network with its samples and reference outputs, and what its plans are when built here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, quantized, batch in (("small-float", False, 1), ("small-qdq", True, 1), ("small-dynamic", True, "batch")):
        onnx.save(small_network(quantized, batch), folder / f"{name}.onnx")
    images = np.random.default_rng(1).normal(size=(SMALL_SAMPLES, 1, 3, SMALL_SIZE, SMALL_SIZE)).astype(np.float32)
    for name in ("small-float", "small-qdq", "small-dynamic"):
        keep_references(folder, name, images, "small-float")
    for recipe in RECIPES:
        add_recipe(folder, recipe)
    index = {path.stem: described(path) for path in sorted(folder.glob("*.onnx"))}
    files.write_json(folder / INDEX, {"prepared_by": versions(), "models": index})
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(index)} networks, {total / 2**20:.1f} MiB")


def small_network(quantized: bool, batch: int | str) -> onnx.ModelProto:
    """Return a small CNN: convolutions with ReLU, a residual addition and a pool, with or without Q/DQ."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def pair(name: str, scale: npt.NDArray[Any], axis: int | None = None) -> str:
        zero = np.zeros(scale.shape, np.int8)
        parameters = [constant(f"{name}_scale", scale.astype(np.float32)), constant(f"{name}_zero", zero)]
        options: dict[str, Any] = {} if axis is None else {"axis": axis}
        nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_q"], f"{name}_Q", **options))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_d"], f"{name}_DQ", **options)
        )
        return f"{name}_d"

    def convolution(index: int, source: str, channels: int) -> str:
        weight = (random.normal(size=(SMALL_CHANNELS, channels, 3, 3)) / (9 * channels) ** 0.5).astype(np.float32)
        name = constant(f"weight{index}", weight)
        if quantized:
            source = pair(source, np.array(4 / 127))
            name = pair(name, np.abs(weight).max(axis=(1, 2, 3)) / 127, axis=0)
        bias = constant(f"bias{index}", (random.normal(size=SMALL_CHANNELS) / 10).astype(np.float32))
        nodes.append(helper.make_node("Conv", [source, name, bias], [f"conv{index}"], f"Conv{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"], f"Relu{index}"))
        return f"relu{index}"

    value = convolution(0, "image", 3)
    for index in range(1, SMALL_LAYERS):
        nodes.append(
            helper.make_node("Add", [convolution(index, value, SMALL_CHANNELS), value], [f"sum{index}"], f"Add{index}")
        )
        value = f"sum{index}"
    nodes.append(helper.make_node("AveragePool", [value], ["features"], "Pool", kernel_shape=[4, 4], strides=[4, 4]))
    side = SMALL_SIZE // 4
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SMALL_SIZE, SMALL_SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, SMALL_CHANNELS, side, side])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def add_recipe(folder: Path, recipe_name: str) -> None:
    """Export a demo network in each mode, with validation images as samples."""
    from benchmarks.recording import trtq
    from trtq import data
    from trtq.config import load_recipe

    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / f"{recipe_name}.toml"
        for suffix in (".toml", ".safetensors"):
            shutil.copy(ROOT / "engines" / f"{recipe_name}{suffix}", scratch)
        trtq("build", recipe, "--mode", ",".join(mode for mode in MODES if mode != "fp32"))
        for mode in MODES:
            shutil.copy(Path(scratch) / recipe_name / mode / "model.onnx", folder / f"{recipe_name}-{mode}.onnx")
        loaded = load_recipe(recipe)
        found = data.load(loaded.data, "validation", loaded.seed, Path(scratch))
        images = np.stack([found[index].image for index in range(IMAGES)])[:, None]
    for mode in MODES:
        keep_references(folder, f"{recipe_name}-{mode}", images, f"{recipe_name}-fp32")


def keep_references(folder: Path, name: str, images: npt.NDArray[Any], float_name: str) -> None:
    """Write the samples beside what ONNX Runtime makes of them, of this file and of the float one."""
    from trtq.backends import ort

    stored: Arrays = {}
    for kind, file in (("same file", name), ("float file", float_name)):
        session = ort.load(folder / f"{file}.onnx")
        given = session.inputs[0].name
        results = [session.run({given: image}) for image in images]
        stored.update({f"{kind}|{one}": np.stack([result[one] for result in results]) for one in results[0]})
    stored[f"input:{given}"] = images
    np.savez_compressed(folder / f"{name}.npz", **cast("dict[str, Any]", stored))


def described(path: Path) -> dict[str, Any]:
    """Return the file's hash, and hash and size of the plans that it builds to on this machine."""
    with tempfile.TemporaryDirectory() as scratch:
        plans = {}
        for target in targets_of(path.stem):
            if target != CURRENT:
                request = {"case": "build", "onnx": str(path), "targets": target.split("+"), "plan": f"{scratch}/plan"}
                outcome = run_case(request, Path(scratch))
                plans[target] = {key: outcome.get(key) for key in ("plan_bytes", "plan_sha256", "build_s", "error")}
    return {"onnx_sha256": files.sha256(path), "onnx_bytes": path.stat().st_size, "plans": plans}


def targets_of(model: str) -> tuple[str, ...]:
    return SMALL_TARGETS if model == "small-qdq" else TARGETS


def measure(folder: Path, out: Path, command: str, budget_s: float) -> None:
    """Do every case until the budget is spent, and write what is known after each."""
    end = time.monotonic() + budget_s
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"trtq": __version__, "command": command, "prepared": index, "here": versions()}
    result.update(cases={}, builds={}, not_reached=[])
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        result["device"] = run_case({"case": "device"}, scratch)
        build_all(folder, scratch, list(index["models"]), result)
        files.write_json(out, result)
        for label, request in requests(folder, scratch, list(index["models"])):
            if time.monotonic() > end:
                result["not_reached"].append(label)
            elif "plan" not in request or Path(request["plan"]).is_file() or request["case"] == "whole_way":
                result["cases"][label] = trimmed(label, run_case(request, scratch))
                print(label, json.dumps(summary(result["cases"][label]))[:300], flush=True)
            files.write_json(out, result)
    print(f"{out}: {len(result['cases'])} cases, {len(result['not_reached'])} not reached")


def build_all(folder: Path, scratch: Path, models: list[str], result: dict[str, Any]) -> None:
    """Build every plan, several at a time, and note where its bytes are those of the machine that prepared."""
    wanted = [(model, target) for model in models for target in targets_of(model)]

    def one(model: str, target: str) -> dict[str, Any]:
        request = {"case": "build", "onnx": str(folder / f"{model}.onnx"), "targets": target.split("+")}
        return run_case({**request, "plan": str(plan_path(scratch, model, target))}, scratch)

    with ThreadPoolExecutor(BUILDERS) as pool:
        outcomes = list(pool.map(lambda pair: one(*pair), wanted))
    prepared = result["prepared"]["models"]
    for (model, target), outcome in zip(wanted, outcomes, strict=True):
        there = prepared[model]["plans"].get(target, {}).get("plan_sha256")
        same = None if there is None else outcome.get("plan_sha256") == there
        kept = outcome if not outcome["ok"] else {key: outcome[key] for key in ("plan_bytes", "plan_sha256", "build_s")}
        result["builds"][f"{model}.{target}"] = {**kept, "same_bytes_as_without_gpu": same}


def requests(folder: Path, scratch: Path, models: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cases, the telling ones first."""
    ordered = sorted(models, key=lambda name: (not name.startswith("small-qdq"), "ptq" not in name, name))
    for position in range(len(SMALL_TARGETS)):
        for model in ordered:
            targets = targets_of(model)
            if position < len(targets):
                plan = str(plan_path(scratch, model, targets[position]))
                case = "dynamic" if model == "small-dynamic" else "run"
                thorough = model == "small-qdq" or "ptq" in model
                samples = str(folder / f"{model}.npz")
                request = {"case": case, "plan": plan, "samples": samples, "thorough": thorough}
                yield f"{case} {model}.{targets[position]}", request
    for target in TARGETS:
        for recipe in RECIPES:
            plans = {
                mode: {
                    "plan": str(plan_path(scratch, f"{recipe}-{mode}", target)),
                    "samples": str(folder / f"{recipe}-{mode}.npz"),
                }
                for mode in MODES
            }
            if all(Path(one["plan"]).is_file() for one in plans.values()):
                yield f"interleaved {recipe}.{target}", {"case": "interleaved", "plans": plans}
    plan = str(plan_path(scratch, "small-qdq", "sm80"))
    for how in BROKEN:
        yield f"broken {how}", {"case": "broken", "plan": plan, "how": how}
    request = {"case": "whole_way", "onnx": str(folder / "small-qdq.onnx"), "targets": list(AHEAD)}
    yield "whole_way small-qdq", {**request, "plan": str(scratch / "w.plan"), "samples": str(folder / "small-qdq.npz")}


def plan_path(scratch: Path, model: str, target: str) -> Path:
    return scratch / f"{model}.{target}.plan"


def run_case(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Do one case in a process of its own; a crash or a lack of time is an outcome too."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        target = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "benchmarks.gpu_cases", json.dumps(request), str(target)]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace", timeout=CASE_S, cwd=ROOT
            )
            code, output = done.returncode, (done.stdout + done.stderr)[-KEPT_OUTPUT:]
        except subprocess.TimeoutExpired:
            code, output = None, f"took longer than {CASE_S:g} s"
        written = target.read_text(encoding="utf-8") if target.is_file() else '{"ok": false}'
    outcome = json.loads(written.replace(f"{scratch}/", ""))
    return {**outcome, "exit_code": code, "output": output, "seconds": round(time.perf_counter() - started, 2)}


def trimmed(label: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Keep the inspector's whole document for the small networks alone."""
    document = outcome.get("inspector")
    if isinstance(document, dict) and "Layers" in document and "small" not in label:
        outcome["inspector"] = {"layers": len(document["Layers"]), "first": document["Layers"][:2]}
    return outcome


def summary(outcome: dict[str, Any]) -> dict[str, Any]:
    times = {
        key.removeprefix("times_"): value.get("median_us", value.get("error"))
        for key, value in outcome.items()
        if key.startswith("times_")
    }
    return {"ok": outcome["ok"], "error": outcome.get("error"), "sqnr_db": outcome.get("sqnr_db"), "median_us": times}


def versions() -> dict[str, Any]:
    """Return what is installed, and NVIDIA's own words about the GPU where there are any."""
    from importlib import metadata

    names = ("numpy", "onnx", "onnxruntime", "cuda-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs")
    found: dict[str, Any] = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,clocks.sm,clocks.mem", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, check=False, capture_output=True, text=True, timeout=20)
        found["nvidia_smi"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        found["nvidia_smi"] = str(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER")
    parser.add_argument("--models", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", default=ROOT / "benchmarks" / "results" / "gpu_runtime.json"
    )
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="no new case is begun after that")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare)
    elif options.models:
        command = "python -m benchmarks.gpu_runtime --models FOLDER --out FILE"
        measure(options.models.resolve(), options.out.resolve(), command, options.budget_s)
    else:
        parser.error("give --prepare FOLDER or --models FOLDER")


if __name__ == "__main__":
    main()
