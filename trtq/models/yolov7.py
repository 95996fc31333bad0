"""YOLOv7 and YOLOv7-tiny: the network up to its three raw head maps, after the paper (arXiv 2207.02696).

Decoding and non-maximum suppression are outside the network (`trtq.evaluate.decode`), so that all of it can be
quantized. Every part traces with torch.fx: no control flow that depends on data, no in-place operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trtq.errors import ConfigError

Anchors = Sequence[Sequence[Sequence[float]]]

STRIDES = (8, 16, 32)
CHANNEL_STEP = 8
# Anchor widths and heights in pixels, a row a stride, for COCO at 640 px.
TINY_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
FULL_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
ACTIVATIONS = ("leaky_relu", "silu")
LEAKY_SLOPE = 0.1
OBJECT_PRIOR = 0.01


def activation(name: str) -> nn.Module:
    """Return a fresh activation module; raises `ConfigError` for an unknown name."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation '{name}' is not known; it must be one of {', '.join(ACTIVATIONS)}")
    return nn.LeakyReLU(LEAKY_SLOPE) if name == "leaky_relu" else nn.SiLU()


class ConvBNAct(nn.Module):
    """Convolution without bias, batch normalisation, activation: (n, inputs, h, w) to (n, outputs, h/s, w/s)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, act: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class RepConv(nn.Module):
    """A re-parameterised convolution (arXiv 2101.03697) in deploy form: one 3x3 convolution with bias, activation."""

    def __init__(self, inputs: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.act(self.conv(x))  # type: ignore[no-any-return]


class ElanTiny(nn.Module):
    """Two 1x1 branches, two 3x3 in a chain on the second; all four are joined and mixed by a 1x1."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, hidden, 1, act=act)
        self.cv2 = ConvBNAct(inputs, hidden, 1, act=act)
        self.cv3 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv4 = ConvBNAct(hidden, hidden, 3, act=act)
        self.out = ConvBNAct(4 * hidden, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        branch2 = self.cv2(x)
        branch3 = self.cv3(branch2)
        joined = torch.cat((self.cv4(branch3), branch3, branch2, self.cv1(x)), 1)
        return self.out(joined)  # type: ignore[no-any-return]


class Elan(nn.Module):
    """Two 1x1 branches, four 3x3 in a chain on the second; every other one is joined and mixed by a 1x1."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, hidden, 1, act=act)
        self.cv2 = ConvBNAct(inputs, hidden, 1, act=act)
        self.cv3 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv4 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv5 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv6 = ConvBNAct(hidden, hidden, 3, act=act)
        self.out = ConvBNAct(4 * hidden, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        branch2 = self.cv2(x)
        branch4 = self.cv4(self.cv3(branch2))
        branch6 = self.cv6(self.cv5(branch4))
        joined = torch.cat((branch6, branch4, branch2, self.cv1(x)), 1)
        return self.out(joined)  # type: ignore[no-any-return]


class ElanHead(nn.Module):
    """As `Elan` with narrower 3x3 convolutions, and all six branches are joined."""

    def __init__(self, inputs: int, outputs: int, hidden: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, outputs, 1, act=act)
        self.cv2 = ConvBNAct(inputs, outputs, 1, act=act)
        self.cv3 = ConvBNAct(outputs, hidden, 3, act=act)
        self.cv4 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv5 = ConvBNAct(hidden, hidden, 3, act=act)
        self.cv6 = ConvBNAct(hidden, hidden, 3, act=act)
        self.out = ConvBNAct(2 * outputs + 4 * hidden, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        branch2 = self.cv2(x)
        branch3 = self.cv3(branch2)
        branch4 = self.cv4(branch3)
        branch5 = self.cv5(branch4)
        joined = torch.cat((self.cv6(branch5), branch5, branch4, branch3, branch2, self.cv1(x)), 1)
        return self.out(joined)  # type: ignore[no-any-return]


class Shrink(nn.Module):
    """MP: halve height and width by a max pool with 1x1 and by a strided 3x3, and join both, with others if given."""

    def __init__(self, inputs: int, branch: int, *, act: str) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2)
        self.cv1 = ConvBNAct(inputs, branch, 1, act=act)
        self.cv2 = ConvBNAct(inputs, branch, 1, act=act)
        self.cv3 = ConvBNAct(branch, branch, 3, 2, act=act)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:  # noqa: D102
        return torch.cat((self.cv3(self.cv2(x)), self.cv1(self.pool(x)), *others), 1)


class PoolChain(nn.Module):
    """Spatial pyramid pooling: the input beside its 5, 9 and 13 pixel max pools, as three chained 5 pixel pools."""

    def __init__(self) -> None:
        super().__init__()
        self.pool1 = nn.MaxPool2d(5, 1, 2)
        self.pool2 = nn.MaxPool2d(5, 1, 2)
        self.pool3 = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        five = self.pool1(x)
        nine = self.pool2(five)
        return torch.cat((self.pool3(nine), nine, five, x), 1)


class SppTiny(nn.Module):
    """Spatial pyramid pooling on one of two 1x1 branches (cross stage partial), the tiny form."""

    def __init__(self, inputs: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, outputs, 1, act=act)
        self.cv2 = ConvBNAct(inputs, outputs, 1, act=act)
        self.spp = PoolChain()
        self.cv3 = ConvBNAct(4 * outputs, outputs, 1, act=act)
        self.out = ConvBNAct(2 * outputs, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.out(torch.cat((self.cv3(self.spp(self.cv2(x))), self.cv1(x)), 1))  # type: ignore[no-any-return]


class SppCspc(nn.Module):
    """Spatial pyramid pooling between convolutions on one of two 1x1 branches (cross stage partial), the full form."""

    def __init__(self, inputs: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, outputs, 1, act=act)
        self.cv2 = ConvBNAct(inputs, outputs, 1, act=act)
        self.cv3 = ConvBNAct(outputs, outputs, 3, act=act)
        self.cv4 = ConvBNAct(outputs, outputs, 1, act=act)
        self.spp = PoolChain()
        self.cv5 = ConvBNAct(4 * outputs, outputs, 1, act=act)
        self.cv6 = ConvBNAct(outputs, outputs, 3, act=act)
        self.out = ConvBNAct(2 * outputs, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        pooled = self.cv6(self.cv5(self.spp(self.cv4(self.cv3(self.cv1(x))))))
        return self.out(torch.cat((pooled, self.cv2(x)), 1))  # type: ignore[no-any-return]


class Widen(nn.Module):
    """Step up the pyramid: 1x1, double height and width (nearest), join with a 1x1 of the lateral map."""

    def __init__(self, inputs: int, lateral: int, outputs: int, *, act: str) -> None:
        super().__init__()
        self.cv1 = ConvBNAct(inputs, outputs, 1, act=act)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.cv2 = ConvBNAct(lateral, outputs, 1, act=act)

    def forward(self, x: Tensor, lateral: Tensor) -> Tensor:  # noqa: D102
        return torch.cat((self.cv2(lateral), self.up(self.cv1(x))), 1)


class TinyBackbone(nn.Module):
    """(n, 3, h, w) to maps at strides 8, 16 and 32."""

    def __init__(self, c: Sequence[int], act: str) -> None:
        super().__init__()
        self.stem1 = ConvBNAct(3, c[0], 3, 2, act=act)
        self.stem2 = ConvBNAct(c[0], c[1], 3, 2, act=act)
        self.elan1 = ElanTiny(c[1], c[0], c[1], act=act)
        self.pool1 = nn.MaxPool2d(2, 2)
        self.elan2 = ElanTiny(c[1], c[1], c[2], act=act)
        self.pool2 = nn.MaxPool2d(2, 2)
        self.elan3 = ElanTiny(c[2], c[2], c[3], act=act)
        self.pool3 = nn.MaxPool2d(2, 2)
        self.elan4 = ElanTiny(c[3], c[3], c[4], act=act)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        p3 = self.elan2(self.pool1(self.elan1(self.stem2(self.stem1(x)))))
        p4 = self.elan3(self.pool2(p3))
        return p3, p4, self.elan4(self.pool3(p4))


class TinyHead(nn.Module):
    """Path aggregation over the three maps, the tiny form."""

    def __init__(self, c: Sequence[int], act: str) -> None:
        super().__init__()
        self.spp = SppTiny(c[4], c[3], act=act)
        self.up4 = Widen(c[3], c[3], c[2], act=act)
        self.elan_up4 = ElanTiny(2 * c[2], c[1], c[2], act=act)
        self.up3 = Widen(c[2], c[2], c[1], act=act)
        self.elan_up3 = ElanTiny(2 * c[1], c[0], c[1], act=act)
        self.down4 = ConvBNAct(c[1], c[2], 3, 2, act=act)
        self.elan_down4 = ElanTiny(2 * c[2], c[1], c[2], act=act)
        self.down5 = ConvBNAct(c[2], c[3], 3, 2, act=act)
        self.elan_down5 = ElanTiny(2 * c[3], c[2], c[3], act=act)
        self.out3 = ConvBNAct(c[1], c[2], 3, act=act)
        self.out4 = ConvBNAct(c[2], c[3], 3, act=act)
        self.out5 = ConvBNAct(c[3], c[4], 3, act=act)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        pooled = self.spp(p5)
        up4 = self.elan_up4(self.up4(pooled, p4))
        up3 = self.elan_up3(self.up3(up4, p3))
        down4 = self.elan_down4(torch.cat((self.down4(up3), up4), 1))
        down5 = self.elan_down5(torch.cat((self.down5(down4), pooled), 1))
        return self.out3(up3), self.out4(down4), self.out5(down5)


class FullBackbone(nn.Module):
    """(n, 3, h, w) to maps at strides 8, 16 and 32."""

    def __init__(self, c: Sequence[int], act: str) -> None:
        super().__init__()
        self.stem1 = ConvBNAct(3, c[0], 3, act=act)
        self.stem2 = ConvBNAct(c[0], c[1], 3, 2, act=act)
        self.stem3 = ConvBNAct(c[1], c[1], 3, act=act)
        self.stem4 = ConvBNAct(c[1], c[2], 3, 2, act=act)
        self.elan1 = Elan(c[2], c[1], c[3], act=act)
        self.shrink1 = Shrink(c[3], c[2], act=act)
        self.elan2 = Elan(2 * c[2], c[2], c[4], act=act)
        self.shrink2 = Shrink(c[4], c[3], act=act)
        self.elan3 = Elan(2 * c[3], c[3], c[5], act=act)
        self.shrink3 = Shrink(c[5], c[4], act=act)
        self.elan4 = Elan(2 * c[4], c[3], c[5], act=act)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        stem = self.stem4(self.stem3(self.stem2(self.stem1(x))))
        p3 = self.elan2(self.shrink1(self.elan1(stem)))
        p4 = self.elan3(self.shrink2(p3))
        return p3, p4, self.elan4(self.shrink3(p4))


class FullHead(nn.Module):
    """Path aggregation over the three maps, the full form."""

    def __init__(self, c: Sequence[int], act: str) -> None:
        super().__init__()
        self.spp = SppCspc(c[5], c[4], act=act)
        self.up4 = Widen(c[4], c[5], c[3], act=act)
        self.elan_up4 = ElanHead(2 * c[3], c[3], c[2], act=act)
        self.up3 = Widen(c[3], c[4], c[2], act=act)
        self.elan_up3 = ElanHead(2 * c[2], c[2], c[1], act=act)
        self.down4 = Shrink(c[2], c[2], act=act)
        self.elan_down4 = ElanHead(2 * c[2] + c[3], c[3], c[2], act=act)
        self.down5 = Shrink(c[3], c[3], act=act)
        self.elan_down5 = ElanHead(2 * c[3] + c[4], c[4], c[3], act=act)
        self.out3 = RepConv(c[2], c[3], act=act)
        self.out4 = RepConv(c[3], c[4], act=act)
        self.out5 = RepConv(c[4], c[5], act=act)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        pooled = self.spp(p5)
        up4 = self.elan_up4(self.up4(pooled, p4))
        up3 = self.elan_up3(self.up3(up4, p3))
        down4 = self.elan_down4(self.down4(up3, up4))
        down5 = self.elan_down5(self.down5(down4, pooled))
        return self.out3(up3), self.out4(down4), self.out5(down5)


class YoloV7(nn.Module):
    """Backbone, head and three 1x1 detection convolutions.

    Float images (n, 3, h, w) in 0..1, h and w multiples of 32, give three raw maps, (n, a * (5 + classes), h/s, w/s)
    at strides s 8, 16 and 32 with a anchors each: x, y, w, h, object, classes, all before their sigmoid.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, channels: Sequence[int], num_classes: int, anchors: Anchors
    ) -> None:
        super().__init__()
        _check_anchors(anchors)
        self.backbone = backbone
        self.head = head
        self.num_classes = num_classes
        self.anchors = tuple(tuple((float(w), float(h)) for w, h in row) for row in anchors)
        self.detect = nn.ModuleList(
            nn.Conv2d(inputs, len(row) * (5 + num_classes), 1) for inputs, row in zip(channels, anchors, strict=True)
        )
        for conv in self.detect:
            _set_priors(conv, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        p3, p4, p5 = self.head(*self.backbone(x))
        return self.detect[0](p3), self.detect[1](p4), self.detect[2](p5)

    def decode_spec(self) -> dict[str, Any]:
        """Return what `trtq.evaluate.decode` needs to read the maps, as JSON values."""
        anchors = [[list(anchor) for anchor in row] for row in self.anchors]
        return {"kind": "yolov7", "anchors": anchors, "strides": list(STRIDES), "classes": self.num_classes}


def yolov7_tiny(
    num_classes: int = 80, width: float = 1.0, activation: str = "leaky_relu", anchors: Anchors | None = None
) -> YoloV7:
    """Return YOLOv7-tiny, 6.2 M parameters at width 1 and 80 classes; channels are multiples of 8.

    `anchors` are widths and heights in pixels, three strides of at least one each. Raises `ConfigError`.
    """
    c = _channels(width, (32, 64, 128, 256, 512))
    return YoloV7(TinyBackbone(c, activation), TinyHead(c, activation), c[2:], num_classes, anchors or TINY_ANCHORS)


def yolov7(
    num_classes: int = 80, width: float = 1.0, activation: str = "silu", anchors: Anchors | None = None
) -> YoloV7:
    """Return YOLOv7 in deploy form, 36.9 M parameters at width 1 and 80 classes; arguments as for `yolov7_tiny`."""
    c = _channels(width, (32, 64, 128, 256, 512, 1024))
    return YoloV7(FullBackbone(c, activation), FullHead(c, activation), c[3:], num_classes, anchors or FULL_ANCHORS)


@torch.no_grad()
def settle_batchnorm(model: nn.Module, images: Tensor) -> nn.Module:
    """Set every batch normalisation's statistics to those of `images` (n, 3, h, w), in place; leave `model` in eval.

    Random weights without it let activations fade or grow from layer to layer.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def _channels(width: float, full: Sequence[int]) -> list[int]:
    if not width > 0:
        raise ConfigError(f"width is {width}; it must be greater than 0")
    return [max(CHANNEL_STEP, round(count * width / CHANNEL_STEP) * CHANNEL_STEP) for count in full]


def _check_anchors(anchors: Anchors) -> None:
    flat = [anchor for row in anchors for anchor in row]
    if len(anchors) != len(STRIDES) or not flat or any(len(anchor) != 2 or min(anchor) <= 0 for anchor in flat):
        raise ConfigError("anchors must be three lists (strides 8, 16, 32) of [width, height] in pixels")


def _set_priors(conv: nn.Module, num_classes: int) -> None:
    """Start from rare objects and even classes (focal loss, arXiv 1708.02002, section 3.3)."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    with torch.no_grad():
        bias = conv.bias.view(-1, 5 + num_classes)
        bias[:, 4] = -math.log((1 - OBJECT_PRIOR) / OBJECT_PRIOR)
        bias[:, 5:] = -math.log(num_classes)
