"""Q/DQ files of other tools through `trtq lint --fix`: what is found, what TensorRT-RTX builds before and after, SQNR.

First the files in ../shared/data/onnx/producers (one small network through five tools), then onnxruntime.quantization's
own files for the float exports of trtq's two demo networks. SQNR is the mended file against the file as it came, in
ONNX Runtime without optimizations.

    python -m benchmarks.producers
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from benchmarks.recording import ROOT, record, trtq
from trtq import data, qdq, rules
from trtq.backends import BuildSpec, rtx
from trtq.config import load_recipe
from trtq.errors import BuildError, ModelError
from trtq.pipeline.checking import lint_file
from trtq.pipeline.steps import accuracy
from trtq.qdq import reading

PRODUCERS = ROOT.parent / "shared" / "data" / "onnx" / "producers"
RECIPES = ("mobilenet_v2-digits", "yolov7-tiny-digits")
CALIBRATION_IMAGES = 16
COMPARED_IMAGES = 16
VALUE_RULES = tuple(one.code for one in rules.RULES if "TQ301" <= one.code <= "TQ311")
# What each file holds, from how it was made (the table beside the files); everything else holds nothing.
EXPECTED = {
    "fork-ort-default": ["TQ301", "TQ310"],
    "fork-ort-symmetric-per-channel": ["TQ310"],
    "fork-ort-uint8-percentile": ["TQ301", "TQ302", "TQ310"],
    "fork-pt2e-x86": ["TQ301", "TQ302"],
}
INT8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
SYMMETRIC = {**INT8, "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True}}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "symmetric": SYMMETRIC,
    "symmetric-per-channel": {**SYMMETRIC, "per_channel": True},
    "tensorrt-style": {
        **INT8,
        "per_channel": True,
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "AddQDQPairToWeight": True,
        },
    },
    "uint8-percentile": {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "calibrate_method": CalibrationMethod.Percentile,
    },
    "uint8-weights": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
}


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images to onnxruntime's calibration, as many at once as the network's batch."""

    def __init__(self, name: str, batches: list[npt.NDArray[Any]]) -> None:
        self._feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the next feed, None at the end."""
        return next(self._feeds, None)


def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime advises pre-processing for each file
    with tempfile.TemporaryDirectory() as folder:
        fork = {path.stem: small_network(path, Path(folder)) for path in sorted(PRODUCERS.glob("fork-*.onnx"))}
        own = {recipe: demo_network(recipe, Path(folder)) for recipe in RECIPES}
    agreed = sum(one["value_rules"] == one["expected"] for one in fork.values())
    record("producers", "python -m benchmarks.producers", {"table_agrees": agreed, "fork": fork, "onnxruntime": own})


def small_network(path: Path, folder: Path) -> dict[str, Any]:
    session = run_session(path)
    shape = session.get_inputs()[0].shape
    images = np.random.default_rng(0).random([COMPARED_IMAGES, *shape[1:]], np.float32)
    batches = [images[i : i + 1] for i in range(COMPARED_IMAGES)]
    return {"expected": EXPECTED.get(path.stem, []), **mended(path, folder, batches)}


def demo_network(name: str, folder: Path) -> dict[str, Any]:
    recipe, source = load_recipe(ROOT / "engines" / f"{name}.toml"), folder / f"{name}.onnx"
    trtq("export", recipe.path, "--mode", "fp32", "--output", source)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(source)), source)  # what its own pre-processing would add
    spec = run_session(source).get_inputs()[0]
    size = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    result: dict[str, Any] = {"float_accuracy": accuracy(recipe, source)}
    for variant, options in VARIANTS.items():
        quantized = folder / f"{name}-{variant}.onnx"
        calibration = batches(recipe, "calibration", CALIBRATION_IMAGES, size)
        reader = Images(spec.name, calibration)
        quantize_static(source, quantized, reader, quant_format=QuantFormat.QDQ, **options)
        compared = batches(recipe, "validation", COMPARED_IMAGES, size)
        row = mended(quantized, folder, compared)
        row["accuracy"] = accuracy(recipe, quantized)
        row["accuracy_mended"] = accuracy(recipe, folder / "mended" / quantized.name)
        result[variant] = row
    return result


def batches(recipe: Any, split: data.Split, count: int, size: int) -> list[npt.NDArray[Any]]:
    samples = data.load(recipe.data, split, recipe.seed, recipe.path.parent)
    images = [samples[index].image for index in range(min(count, len(samples)))]
    return [np.stack(images[start : start + size]) for start in range(0, len(images) - size + 1, size)]


def mended(path: Path, folder: Path, images: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """Lint and mend one file; return what was found, what is left, and what both versions build to."""
    target = folder / "mended" / path.name
    target.parent.mkdir(exist_ok=True)
    result = lint_file(path, target)
    onnx.checker.check_model(target, full_check=True)
    codes = Counter(finding.code for finding in result.findings)
    before, after = outputs(path, images), outputs(target, images)
    return {
        "findings": dict(sorted(codes.items())),
        "value_rules": [code for code in VALUE_RULES if codes[code]],
        "remaining": dict(Counter(finding.code for finding in result.remaining)),
        "quantized_convolutions": quantized_convolutions(path),
        "built": built(path, folder),
        "built_mended": built(target, folder),
        "sqnr_db": {name: sqnr_db(before[name], after[name]) for name in before},
    }


def quantized_convolutions(path: Path) -> int:
    """Count the convolutions whose data and weight both come from a DequantizeLinear."""
    return sum(
        all(reading.is_dequantize(one.producer()) for one in map(reading.source, node.inputs[:2]) if one is not None)
        for node in qdq.load(path).graph
        if node.op_type == "Conv"
    )


def built(path: Path, folder: Path) -> dict[str, Any]:
    """Return how many convolutions TensorRT-RTX runs in int8 and in float, or why it builds nothing."""
    try:
        engine = rtx.build(BuildSpec(path), folder / rtx.PLAN_NAME)
    except (BuildError, ModelError) as error:
        return {"error": str(error).split(": ", 1)[1]}
    assert engine.layers is not None
    convolutions = [layer for layer in engine.layers.layers if layer.kind in ("correlation", "runtime_fusion")]
    int8 = sum(any(tensor.dtype == "int8" for tensor in layer.inputs) for layer in convolutions)
    return {"int8_convolutions": int8, "float_convolutions": len(convolutions) - int8}


def run_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, images: list[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    session = run_session(path)
    feed = session.get_inputs()[0].name
    runs = [session.run(None, {feed: batch}) for batch in images]
    return {
        spec.name: np.concatenate([np.ravel(one[index]) for one in runs])
        for index, spec in enumerate(session.get_outputs())
    }


def sqnr_db(reference: npt.NDArray[Any], other: npt.NDArray[Any]) -> float | None:
    """Return 10 log10 of signal over noise power; None where both are equal."""
    wide, noise = reference.astype(np.float64), reference.astype(np.float64) - other.astype(np.float64)
    power = float(np.square(noise).sum())
    return None if power == 0 else round(10 * float(np.log10(np.square(wide).sum() / power)), 1)


if __name__ == "__main__":
    main()
