"""ResNet18 at the placements of the published A100 engines: what lint counts, what its fixes take away, and what that
does to a compiled residual block.

Weights and images are random (BatchNorm settled on the images), so this shows structure, not accuracy.

    python -m benchmarks.resnet_fusion
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torchvision
from pytorch_quantization.nn import TensorQuantizer
from pytorch_quantization.tensor_quant import QuantDescriptor
from torch import Tensor, nn

from benchmarks.recording import record
from trtq import backends, qdq, quant, rules
from trtq.config import QuantSpec
from trtq.data import Sample, Task
from trtq.models.yolov7 import settle_batchnorm
from trtq.predict import predict
from trtq.ptq import max_of
from trtq.quant import Quantized
from trtq.rules import Context

OPSET = 17
IMAGES = 4
SIZES = (64, 224)
# Leftover Q/DQ conversions of the published engines: TensorRT 8.4-era, A100, batch 32.
PUBLISHED = {"qat": 10, "qat-residual": 3, "qat-residual-qgap": 1}
BLOCK_CHANNELS, BLOCK_SIZE = 64, 80


class RandomImages:
    """Random images, the same each time, as a data set."""

    task: Task = "classification"
    classes: tuple[str, ...] = ("none",)

    def __init__(self, channels: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(IMAGES, channels, size, size, generator=generator).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], np.array([0]))


class Block(nn.Module):
    """A residual block of two convolutions between a stem and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.left, self.right = (
            nn.Conv2d(BLOCK_CHANNELS, BLOCK_CHANNELS, 3, padding=1) for _ in range(5)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        x = (self.second(self.first(x).relu()) + x).relu()
        return self.left(x).relu(), self.right(x).relu()


def main() -> None:
    networks = {f"resnet18@{size}": resnet18(size) for size in SIZES}
    block = fixed_and_compiled(
        lambda path: export(Block(), path, RandomImages(BLOCK_CHANNELS, BLOCK_SIZE), residual=False),
        RandomImages(BLOCK_CHANNELS, BLOCK_SIZE),
    )
    record("resnet_fusion", "python -m benchmarks.resnet_fusion", {"placements": networks, "residual_block": block})


def resnet18(size: int) -> dict[str, Any]:
    """Return what holds for each placement at one image size."""
    images = RandomImages(3, size)
    found = {}
    for name, published in PUBLISHED.items():
        one = fixed_and_compiled(partial(export_placement, name, images=images), images)
        found[name] = {"published_conversions": published, **one}
    return found


def fixed_and_compiled(write: Callable[[Path], None], images: RandomImages) -> dict[str, Any]:
    """Return the findings of a file, and its prediction and compiled signals before and after its fixes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(path)
        model = qdq.load(path)
        context = calibration(images)
        findings = rules.lint(model, context=context)
        before = _figures(model, Path(folder))
        mended = rules.fix(model, findings, context=context)
        after = _figures(model, Path(folder))
        left = rules.lint(model, context=context)
    return {
        "findings": dict(Counter(one.code for one in findings)),
        "conversions_removed": len({name for one in findings for name in one.removes}),
        "mended": mended,
        "findings_left": dict(Counter(one.code for one in left)),
        "before": before,
        "after": after,
        "traffic_change": round(after["traffic_bytes"] / before["traffic_bytes"] - 1, 4),
    }


def calibration(images: RandomImages) -> Context:
    """Return what the rules may know when images are at hand."""

    def ranges(model: ir.Model, tensors: Sequence[str]) -> Mapping[str, float]:
        return max_of(model, tensors, [images.images])

    return Context(ranges=ranges)


def export_placement(name: str, path: Path, images: RandomImages) -> None:
    """Write torchvision's ResNet18 quantized as `name`, one of PUBLISHED, says."""
    torch.manual_seed(0)
    model = settle_batchnorm(torchvision.models.resnet18(weights=None), torch.from_numpy(images.images))
    export(model, path, images, residual=name != "qat", average_pool=name.endswith("qgap"))


def export(model: nn.Module, path: Path, images: RandomImages, *, residual: bool, average_pool: bool = False) -> None:
    """Write `model` with tied, calibrated quantizers on its layers, its residual inputs and its `avgpool` as asked."""
    spec = QuantSpec(calibrator="max", residual=residual)
    example = torch.zeros(1, *images.images.shape[1:])
    quantized = quant.insert(model, spec, example)
    if average_pool:
        _quantize_pool(quantized, "avgpool")
    quant.tie(quantized, example, OPSET)
    quant.calibrate(quantized, images, spec, batch=IMAGES)
    quant.export(quantized.module, example, path, opset=OPSET)


def _quantize_pool(quantized: Quantized, path: str) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=8, calib_method="max"))
    quantized.module.set_submodule(path, nn.Sequential(quantizer, quantized.module.get_submodule(path)))
    quantized.quantizers[f"{path}.0"] = quantizer


def _figures(model: ir.Model, folder: Path) -> dict[str, Any]:
    path = folder / "compiled.onnx"
    qdq.save(model, path)
    layers = backends.builder("rtx").build(backends.BuildSpec(path), folder / "compiled.plan").layers
    assert layers is not None
    return {
        "predicted_conversions": predict(model).signals.conversions,
        "double_writes": layers.signals.double_writes,
        "max_pools": sum(layer.kind == "maxpool" for layer in layers.layers),
        "float_writes": layers.signals.float_writes,
        "traffic_bytes": layers.signals.traffic_bytes,
    }


if __name__ == "__main__":
    main()
