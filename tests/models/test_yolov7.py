from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from trtq.errors import ConfigError
from trtq.models import parameter_count
from trtq.models.yolov7 import STRIDES, PoolChain, YoloV7, settle_batchnorm, yolov7, yolov7_tiny


def convolutions(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


@pytest.fixture(scope="module")
def small() -> YoloV7:
    torch.manual_seed(0)
    model = yolov7_tiny(num_classes=10, width=0.125)
    settle_batchnorm(model, torch.rand(4, 3, 96, 64))
    return model


def test_published_sizes() -> None:
    with torch.device("meta"):
        tiny, full = yolov7_tiny(), yolov7()
    assert parameter_count(tiny) == pytest.approx(6.2e6, rel=0.01)
    assert parameter_count(full) == pytest.approx(36.9e6, rel=0.01)
    assert len(convolutions(tiny)) == 55 + 3
    assert len(convolutions(full)) == 89 + 3
    assert [name for name in convolutions(tiny) if name.startswith("detect.")] == ["detect.0", "detect.1", "detect.2"]


@pytest.mark.parametrize("build", [yolov7_tiny, yolov7])
@pytest.mark.parametrize("activation", ["leaky_relu", "silu"])
def test_outputs_are_three_raw_maps_and_fx_traces_to_the_same(build: Any, activation: str) -> None:
    torch.manual_seed(1)
    model = build(num_classes=4, width=0.125, activation=activation)
    images = torch.rand(2, 3, 96, 64)
    settle_batchnorm(model, images)
    traced = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        direct, again = model(images), traced(images)
    assert [tuple(one.shape) for one in direct] == [(2, 27, 96 // s, 64 // s) for s in STRIDES]
    for one, other in zip(direct, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_chained_pools_equal_5_9_13() -> None:
    x = torch.randn(2, 3, 17, 14)
    expected = torch.cat([nn.functional.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)] + [x], 1)
    assert torch.equal(PoolChain()(x), expected)


def test_exported_network_gives_the_same_maps(small: YoloV7, tmp_path: Path) -> None:
    session = pytest.importorskip("onnxruntime").InferenceSession
    images = torch.rand(1, 3, 96, 64)
    file = tmp_path / "small.onnx"
    torch.onnx.export(small, (images,), file, dynamo=False, opset_version=17, input_names=["images"])
    assert not {node.op_type for node in onnx.load(file).graph.node} & {"Loop", "If", "NonMaxSuppression"}
    outputs = session(file, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})
    with torch.no_grad():
        for ours, theirs in zip(small(images), outputs, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_the_decode_spec_is_json_and_fits_the_maps(small: YoloV7) -> None:
    spec = json.loads(json.dumps(small.decode_spec()))
    assert spec == small.decode_spec()
    assert (spec["kind"], spec["strides"], spec["classes"]) == ("yolov7", [8, 16, 32], 10)
    assert [conv.out_channels for conv in small.detect] == [len(row) * 15 for row in spec["anchors"]]


def test_settled_statistics_keep_activations_sane() -> None:
    torch.manual_seed(2)
    model = yolov7(width=0.25)
    images = torch.rand(4, 3, 128, 128)
    deviations: list[float] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, output: deviations.append(float(output.std())))
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    settle_batchnorm(model, images)
    deviations.clear()
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    assert not model.training
    assert min(deviations) > 0.7 and max(deviations) < 1.4


def test_widths_are_multiples_of_eight_and_never_zero() -> None:
    for width in (0.01, 0.1875, 0.3):
        model = yolov7_tiny(num_classes=2, width=width)
        hidden = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and not n.startswith("detect.")]
        assert all(conv.out_channels % 8 == 0 and conv.out_channels > 0 for conv in hidden)


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="'relu7' is not known"):
        yolov7_tiny(activation="relu7")
    with pytest.raises(ConfigError, match="width is 0"):
        yolov7_tiny(width=0)
    with pytest.raises(ConfigError, match="three lists"):
        yolov7_tiny(anchors=[[[10, 10]]])
