"""What `trtq lint` and `trtq unify` cost beside the floor: what any tool pays that reads, checks and writes the file.

The floor loads the file, runs onnx.checker, takes it through onnx-graphsurgeon and back, and saves it. A leaner floor
uses onnx-ir, which trtq uses too. Each runs in a fresh process, interpreter start and imports included; time and peak
memory are medians of five rounds, of three for 100,000 nodes (now and then writing a file takes half as long again),
and what is recorded is the ratio to the floor of the same round. `lint` asks the parser of TensorRT-RTX, where that is
installed, in a process of its own; what it would cost without is beside it, run once, as is the leaner floor.

Beside it, and another job: nvidia-modelopt's own insertion into the float network, calibration on one image included.

    pip install onnx-graphsurgeon==0.6.1
    python -m benchmarks.unify_cost [--modelopt PYTHON]   # a Python with nvidia-modelopt[onnx]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import networks
from benchmarks.recording import ROOT, record

RUNS, RUNS_OF_LARGE, LARGE_NODES = 5, 3, 50_000
ONCE = ("lean floor", "lint, no parser asked")
CHANNELS = 4
LIMITS = {"yolov7": {"time": 1.5, "memory": 1.3}, "generated": {"time": 2.0, "memory": 1.3}, "10k to 100k": 12.0}
FLOOR = """
import onnx, onnx_graphsurgeon as gs, sys
model = onnx.load(sys.argv[1])
onnx.checker.check_model(model)
onnx.save(gs.export_onnx(gs.import_onnx(model)), sys.argv[2])
"""
LEAN_FLOOR = """
import onnx, onnx_ir as ir, sys
model = onnx.load(sys.argv[1])
onnx.checker.check_model(model)
onnx.save(ir.to_proto(ir.from_proto(model)), sys.argv[2])
"""
MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
quantize(
    sys.argv[1], quantize_mode="int8", calibration_method="max", output_path=sys.argv[2],
    calibration_data=np.random.default_rng(0).random((1, 3, 640, 640), np.float32),
    calibration_eps=["cpu"], high_precision_dtype="fp32", log_level="ERROR",
)
"""

# A process inherits the peak of the one that starts it, so that one has to be small.
LAUNCHER = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - started, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--no-yolov7", action="store_true", help="leave out what needs torch")
    parser.add_argument("--modelopt", type=Path, help="a Python interpreter that has nvidia-modelopt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {} if options.no_yolov7 else yolov7(folder)
        for nodes in options.nodes:
            models[f"generated, {nodes} nodes"] = generated(nodes, folder / f"{nodes}.onnx")
        result = {name: compared(path, folder / "out.onnx") for name, path in models.items()}
        peer = None if options.modelopt is None else modelopt(options.modelopt, folder)
    counts = sorted(options.nodes)
    growth = {
        f"{few} to {many} nodes": grown(*(result[f"generated, {nodes} nodes"] for nodes in (few, many)))
        for few, many in pairwise(counts)
    }
    record(
        "unify_cost",
        "python -m benchmarks.unify_cost",
        {
            "limits": LIMITS,
            "networks": result,
            "modelopt": peer,
            "times_as_long": growth,
        },
    )


def grown(small: Mapping[str, Any], large: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times longer each command takes on the larger graph."""
    medians = small["medians"], large["medians"]
    return {name: round(medians[1][name]["s"] / medians[0][name]["s"], 2) for name in medians[0]}


def yolov7(folder: Path) -> dict[str, Path]:
    """Export full-size YOLOv7 with one quantizer for each convolution's input, in both forms; weights are random.

    Float weights before Q and DQ are what pytorch-quantization writes and TensorRT 8 takes. With int8 weights the file
    is a quarter as large, and the floor little more than the start of an interpreter.
    """
    return {
        f"yolov7@640, {weights} weights": networks.exported("yolov7", "naive", folder, weights)
        for weights in ("float", "int8")
    }


def generated(nodes: int, path: Path) -> Path:
    """Write a chain of blocks, each a convolution whose result feeds two others and a Concat, every scale its own."""
    random = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    constants = {"zero": np.int8(0), "weight_zero": np.zeros(CHANNELS, np.int8)}

    def op(kind: str, *inputs: str, **attributes: Any) -> str:
        made.append(helper.make_node(kind, inputs, [f"t{len(made)}"], f"n{len(made)}", **attributes))
        return str(made[-1].output[0])

    def conv(tensor: str, channels: int) -> str:
        tag = len(made)
        constants[f"scale{tag}"] = np.float32(random.uniform(0.01, 0.05))
        constants[f"w{tag}"] = random.integers(-127, 128, (CHANNELS, channels, 1, 1), dtype=np.int8)
        constants[f"ws{tag}"] = random.uniform(0.001, 0.01, CHANNELS).astype(np.float32)
        pair = op("DequantizeLinear", op("QuantizeLinear", tensor, f"scale{tag}", "zero"), f"scale{tag}", "zero")
        weight = op("DequantizeLinear", f"w{tag}", f"ws{tag}", "weight_zero", axis=0)
        return op("Relu", op("Conv", pair, weight))

    tensor = "x"
    while len(made) < nodes:
        first = conv(tensor, CHANNELS)
        joined = op("Concat", first, conv(first, CHANNELS), conv(first, CHANNELS), axis=1)
        tensor = conv(op("MaxPool", joined, kernel_shape=[1, 1]), 3 * CHANNELS)
    float_map = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 4, 4]) for name in ("x", tensor)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(made, "generated", float_map[:1], float_map[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def modelopt(python: Path, folder: Path) -> dict[str, Any]:
    """Time nvidia-modelopt's insertion into the float YOLOv7, its calibration on one image included."""
    model = networks.exported("yolov7", "fp32", folder)
    version = subprocess.run(
        [python, "-c", "from importlib.metadata import version; print(version('nvidia-modelopt'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    cost = measured([str(python), "-c", MODELOPT, str(model), str(folder / "modelopt.onnx")])
    return {"version": version, "network": "yolov7@640, float", "calibration_images": 1, **cost}


def compared(model: Path, output: Path) -> dict[str, Any]:
    lint = [sys.executable, "-m", "trtq", "lint", str(model), "--json"]
    commands = {
        "floor": [sys.executable, "-c", FLOOR, str(model), str(output)],
        "lean floor": [sys.executable, "-c", LEAN_FLOOR, str(model), str(output)],
        "lint": lint,
        "lint, no parser asked": [*lint, "--ignore", "TQ402"],
        "unify": [sys.executable, "-m", "trtq", "unify", str(model), "-o", str(output), "--json"],
    }
    nodes = len(onnx.load(model, load_external_data=False).graph.node)
    rounds = [
        {name: measured(command) for name, command in commands.items() if name not in ONCE or not number}
        for number in range(RUNS if nodes < LARGE_NODES else RUNS_OF_LARGE)
    ]
    medians = {
        name: {key: statistics.median(one[name][key] for one in rounds if name in one) for key in ("s", "peak_mib")}
        for name in commands
    }
    return {
        "nodes": nodes,
        "file_bytes": model.stat().st_size,
        "medians": medians,
        "of_floor": {name: _ratios(rounds, name) for name in commands if name != "floor"},
        "rounds": rounds,
    }


def _ratios(rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> dict[str, float]:
    pairs = {"time": "s", "memory": "peak_mib"}
    return {
        word: round(statistics.median(one[name][key] / one["floor"][key] for one in rounds if name in one), 3)
        for word, key in pairs.items()
    }


def measured(command: Sequence[str]) -> dict[str, float]:
    """Run a command; return its wall time and the peak of its resident memory."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True
    )
    seconds, peak_kib, code = done.stdout.split()
    if int(code) not in (0, 1):  # lint ends with 1 where it finds something
        raise RuntimeError(f"{' '.join(command[:4])} ended with {code}")
    return {"s": round(float(seconds), 3), "peak_mib": round(int(peak_kib) / 1024, 1)}


if __name__ == "__main__":
    main()
