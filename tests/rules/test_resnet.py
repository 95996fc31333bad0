"""The published ResNet18 placements, exported again: lint counts their conversions and takes them away."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

NEEDED = "ResNet18 is exported from PyTorch and calibrated by ONNX Runtime"
pytest.importorskip("torch", reason=NEEDED)
torchvision = pytest.importorskip("torchvision", reason=NEEDED)
onnxruntime = pytest.importorskip("onnxruntime", reason=NEEDED)
pytest.importorskip("pytorch_quantization", reason=NEEDED)

import torch  # noqa: E402

from benchmarks import resnet_fusion  # noqa: E402
from tests.conftest import present  # noqa: E402
from tests.ir_values import producer  # noqa: E402
from trtq import qdq, rules  # noqa: E402
from trtq.models.yolov7 import settle_batchnorm  # noqa: E402
from trtq.predict import predict  # noqa: E402

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines" / "trt8-resnet18-a100"
CONVERSIONS = ("quantize", "dequantize", "requantize")
IMAGES = resnet_fusion.RandomImages(3, 64)
CONTEXT = resnet_fusion.calibration(IMAGES)


@pytest.fixture(scope="module")
def placements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("resnet18")
    for name in resnet_fusion.PUBLISHED:
        resnet_fusion.export_placement(name, folder / f"{name}.onnx", IMAGES)
    return {name: folder / f"{name}.onnx" for name in resnet_fusion.PUBLISHED}


def conversions(model: ir.Model) -> set[str]:
    """The predicted conversions but the input's own, each by the tensor that its QuantizeLinear writes."""
    nodes = {node.name: node for node in model.graph}
    found = set()
    for layer in predict(model).layers:
        if layer.kind in CONVERSIONS:
            quantize = nodes[layer.onnx_nodes[0]]
            if layer.kind == "dequantize":
                quantize = producer(quantize.inputs[0])
            if quantize.inputs[0] is not model.graph.inputs[0]:
                found.add(present(quantize.outputs[0].name))
    return found


@pytest.mark.parametrize("name", resnet_fusion.PUBLISHED)
def test_findings_remove_exactly_the_conversions_of_the_published_engine(
    name: str, placements: dict[str, Path]
) -> None:
    model, expected = qdq.load(placements[name]), resnet_fusion.PUBLISHED[name]
    assert predict(model).signals.conversions == expected
    removed = {conversion for finding in rules.lint(model) for conversion in finding.removes}
    assert removed == conversions(model) and len(removed) == expected - 1
    file = ENGINES / f"{name}.graph.json"
    if not file.exists():
        pytest.skip(f"{file.name} of the shared engine files is not here")
    assert sum(layer.get("Origin") == "QDQ" for layer in json.loads(file.read_text())["Layers"]) == expected


def test_fixes_take_the_first_placement_to_the_last(placements: dict[str, Path]) -> None:
    model, wanted = qdq.load(placements["qat"]), qdq.load(placements["qat-residual-qgap"])
    findings = rules.lint(model, context=CONTEXT)
    assert Counter(one.code for one in findings) == {"TQ201": 8, "TQ206": 1, "TQ208": 1}
    assert all(one.fixable for one in findings)
    rules.fix(model, findings, context=CONTEXT)
    assert rules.lint(model, context=CONTEXT) == () == rules.lint(wanted)
    assert predict(model).signals.conversions == 1
    assert layers(model) == layers(wanted)
    assert sqnr_db(outputs(wanted), outputs(model)) > 25  # the scales come from two calibrations


def test_without_images_what_has_a_scale_is_mended_and_the_rest_says_why(placements: dict[str, Path]) -> None:
    model = qdq.load(placements["qat"])
    rules.fix(model, rules.lint(model))
    left = rules.lint(model)
    assert Counter(one.code for one in left) == {"TQ201": 3, "TQ208": 1}
    assert not any(one.fixable for one in left) and all("--calibration" in one.message for one in left)


def test_the_second_placement_is_mended_by_one_pair(placements: dict[str, Path]) -> None:
    model = qdq.load(placements["qat-residual"])
    before = len(model.graph)
    (finding,) = rules.lint(model, context=CONTEXT)
    assert rules.fix(model, [finding], context=CONTEXT) == 1
    assert len(model.graph) == before + 2 and layers(model) == layers(qdq.load(placements["qat-residual-qgap"]))


def test_mobilenet_v2_loses_what_its_findings_say(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle_batchnorm(torchvision.models.mobilenet_v2(weights=None), torch.from_numpy(IMAGES.images))
    resnet_fusion.export(network, tmp_path / "model.onnx", IMAGES, residual=False)
    model = qdq.load(tmp_path / "model.onnx")
    findings = rules.lint(model, context=CONTEXT)
    assert {conversion for finding in findings for conversion in finding.removes} == conversions(model)
    assert predict(model).signals.conversions == 17
    rules.fix(model, findings, context=CONTEXT)
    assert rules.lint(model, context=CONTEXT) == () and predict(model).signals.conversions == 1


def test_a_residual_block_moves_a_tenth_less(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    images = resnet_fusion.RandomImages(resnet_fusion.BLOCK_CHANNELS, resnet_fusion.BLOCK_SIZE)
    torch.manual_seed(0)
    result = resnet_fusion.fixed_and_compiled(
        lambda path: resnet_fusion.export(resnet_fusion.Block(), path, images, residual=False), images
    )
    assert (result["findings"], result["findings_left"]) == ({"TQ201": 1}, {})
    assert result["before"]["traffic_bytes"] == 28_262_400 and result["after"]["traffic_bytes"] == 25_395_200
    assert (result["before"]["double_writes"], result["after"]["double_writes"]) == (1, 0)


def layers(model: ir.Model) -> list[tuple[str, list[str], list[str]]]:
    found = predict(model).layers
    return [(one.kind, [t.dtype for t in one.inputs], [t.dtype for t in one.outputs]) for one in found]


def outputs(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image[None]})[0] for image in IMAGES.images])


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))
