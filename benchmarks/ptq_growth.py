"""What `trtq ptq` costs with 16 and with 256 images to calibrate on, beside ONNX Runtime's quantizer and modelopt's.

YOLOv7-tiny as the demo's recipe exports it, float; images of the recipe. Each tool takes the largest absolute value
(ONNX Runtime's MinMax, modelopt's max), so that all do the same work, and trtq its default, mse, besides. Every run is
a fresh process, interpreter start and imports included, in turn over ROUNDS rounds; seconds and peak memory are
medians. What is claimed is trtq's ratio to each, and what 16 times the images cost.

    python -m benchmarks.ptq_growth [--modelopt PYTHON]   # a Python with nvidia-modelopt[onnx]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.ptq_peers import MODELOPT, exported, samples
from benchmarks.recording import ROOT, record
from benchmarks.unify_cost import measured

Costs = dict[str, dict[str, float]]
RECIPE = ROOT / "engines" / "yolov7-tiny-digits.toml"
ROUNDS = 3
IMAGES = (16, 256)
# As ONNX Runtime's documentation has it for TensorRT: symmetric int8, a scale for each channel of a weight.
ONNXRUNTIME = """
import sys
import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter(np.load(sys.argv[3])[:, None])
    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}

quantize_static(
    sys.argv[1], sys.argv[2], Images(), quant_format=QuantFormat.QDQ, per_channel=True,
    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
    extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelopt", type=Path, help="a Python interpreter that has nvidia-modelopt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = exported(RECIPE, folder / "model.onnx")
        measurements = {count: cost_of(model, count, options.modelopt, folder) for count in IMAGES}
    costs = {count: medians for count, (medians, _) in measurements.items()}
    few, many = (costs[count] for count in IMAGES)
    result = {
        "network": RECIPE.stem,
        "rounds": ROUNDS,
        "by_images": {str(count): found for count, found in costs.items()},
        "raw": {str(count): rounds for count, (_, rounds) in measurements.items()},
        "trtq_of": {str(count): {tool: ratios(found, tool) for tool in found} for count, found in costs.items()},
        "many_of_few": {tool: {key: round(many[tool][key] / few[tool][key], 2) for key in many[tool]} for tool in many},
    }
    record("ptq_growth", "python -m benchmarks.ptq_growth --modelopt PYTHON", result)


def cost_of(model: Path, count: int, modelopt: Path | None, folder: Path) -> tuple[Costs, list[Costs]]:
    """Return each tool's seconds and peak memory for so many images: medians, and each round's."""
    images, target = folder / f"{count}.npy", folder / "out.onnx"
    np.save(images, samples(RECIPE, "train", count))
    files = [str(model), str(target), str(images)]
    ours = [sys.executable, "-m", "trtq", "ptq", files[0], "--calibration", files[2], "-o", files[1], "--calibrator"]
    commands = {
        "trtq max": [*ours, "max"],
        "trtq mse": [*ours, "mse"],
        "onnxruntime MinMax": [sys.executable, "-c", ONNXRUNTIME, *files],
    }
    if modelopt is not None:
        commands["modelopt max"] = [str(modelopt), "-c", MODELOPT, *files, "max"]
    rounds: list[Costs] = []
    for _ in range(ROUNDS):
        rounds.append({})
        for tool, command in commands.items():
            target.unlink(missing_ok=True)
            rounds[-1][tool] = measured(command)
    medians = {
        tool: {key: statistics.median(one[tool][key] for one in rounds) for key in ("s", "peak_mib")}
        for tool in commands
    }
    return medians, rounds


def ratios(costs: Costs, tool: str) -> dict[str, float]:
    return {key: round(costs["trtq max"][key] / costs[tool][key], 3) for key in ("s", "peak_mib")}


if __name__ == "__main__":
    main()
