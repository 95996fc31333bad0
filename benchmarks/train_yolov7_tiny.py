"""Train the demo's detector on digit scenes: `python -m benchmarks.train_yolov7_tiny`.

The loss is our own, from the papers: every anchor of fitting shape is responsible in the cell of a box's centre and in
its two nearest neighbours (arXiv 2011.08036), complete IoU for boxes (arXiv 1911.08287), binary cross entropy for
object and class, with the reached IoU as the object's target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torchvision.ops import complete_box_iou_loss

from benchmarks import training
from trtq import data
from trtq.config import Recipe, load_recipe
from trtq.data import Dataset, Sample
from trtq.models import load_model

# Digits differ in size by 3 to 1 only: a wider ratio would make every anchor responsible for every digit.
LARGEST_RATIO = 2.0
BOX_WEIGHT, OBJECT_WEIGHT, CLASS_WEIGHT = 1.0, 2.0, 2.5
# Fine maps hold more cells, so that each counts less in the mean.
OBJECT_BALANCE = (4.0, 1.0, 0.4)


@dataclasses.dataclass(frozen=True)
class Assigned:
    """Where boxes are to be found in one map: boxes (k, 4) and labels (k,) at indices (k,) of the map."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    boxes: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class YoloLoss:
    """Loss of raw head maps against samples, for one network's decode spec."""

    spec: dict[str, Any]

    def __call__(self, outputs: Sequence[Tensor], samples: list[Sample]) -> Tensor:
        truth = stacked(samples)
        total = torch.zeros(())
        levels = zip(outputs, self.spec["strides"], self.spec["anchors"], OBJECT_BALANCE, strict=True)
        for output, stride, anchors, balance in levels:
            total = total + self._level(output, stride, torch.tensor(anchors), balance, truth)
        return total

    def _level(
        self, output: Tensor, stride: int, anchors: Tensor, balance: float, truth: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        images, _, height, width = output.shape
        maps = output.reshape(images, len(anchors), -1, height, width).permute(0, 1, 3, 4, 2)
        where = assigned(truth, anchors, stride, height, width)
        target = torch.zeros_like(maps[..., 4])
        loss = torch.zeros(())
        if len(where.image):
            raw = maps[where.image, where.anchor, where.row, where.column]
            found = decoded(raw, where, anchors, stride)
            missed = complete_box_iou_loss(found, where.boxes)
            target[where.image, where.anchor, where.row, where.column] = (1 - missed.detach()).clamp(0, 1)
            classes = one_hot(where.labels, self.spec["classes"]).float()
            loss = BOX_WEIGHT * missed.mean() + CLASS_WEIGHT * binary_cross_entropy_with_logits(raw[:, 5:], classes)
        return loss + OBJECT_WEIGHT * balance * binary_cross_entropy_with_logits(maps[..., 4], target)


def stacked(samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Return image numbers (k,), boxes (k, 4) and labels (k,) of all samples."""
    counts = torch.tensor([len(sample.labels) for sample in samples])
    boxes = torch.cat([torch.from_numpy(sample.boxes).view(-1, 4) for sample in samples])
    labels = torch.cat([torch.from_numpy(sample.labels) for sample in samples])
    return torch.repeat_interleave(torch.arange(len(samples)), counts), boxes, labels


def assigned(truth: tuple[Tensor, Tensor, Tensor], anchors: Tensor, stride: int, height: int, width: int) -> Assigned:
    """Return the cells and anchors that are responsible for each box in a map of `height` x `width` cells."""
    image, boxes, labels = truth
    sides = boxes[:, 2:] - boxes[:, :2]
    ratio = sides[:, None] / anchors
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < LARGEST_RATIO
    box, anchor = fits.nonzero(as_tuple=True)
    centre = (boxes[box, :2] + boxes[box, 2:]) / 2 / stride
    own = centre.floor()
    nearest = torch.where(centre - own < 0.5, -1, 1)
    steps = torch.stack((torch.zeros_like(nearest), nearest * torch.tensor([1, 0]), nearest * torch.tensor([0, 1])))
    column, row = (own.long() + steps).reshape(-1, 2).unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    box, anchor = box.repeat(3)[inside], anchor.repeat(3)[inside]
    return Assigned(image[box], anchor, row[inside], column[inside], boxes[box], labels[box])


def decoded(raw: Tensor, where: Assigned, anchors: Tensor, stride: int) -> Tensor:
    """Return boxes (k, 4) of raw predictions (k, 5 + classes), as `trtq.evaluate.decode` reads them."""
    cell = torch.stack((where.column, where.row), dim=1)
    centre = (2 * raw[:, :2].sigmoid() - 0.5 + cell) * stride
    sides = (2 * raw[:, 2:4].sigmoid()) ** 2 * anchors[where.anchor]
    return torch.cat((centre - sides / 2, centre + sides / 2), dim=1)


def scenes(recipe: Recipe, count: int) -> Dataset:
    """Return as many different training scenes as the training needs."""
    return data.load(dataclasses.replace(recipe.data, train_images=count), "train", recipe.seed, recipe.path.parent)


def main() -> None:
    """Train, evaluate and record."""
    options = training.arguments("Train YOLOv7-tiny", "engines/yolov7-tiny-digits.toml", 2500, 4e-3)
    model: Any = load_model(load_recipe(options.recipe).model, None)
    spec = model.decode_spec()
    training.run(options, "width", scenes, YoloLoss(spec))


if __name__ == "__main__":
    main()
