"""Train the demo's classifier on the bundled digits: `python -m benchmarks.train_mobilenet_v2`."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import training
from trtq import data
from trtq.config import Recipe
from trtq.data import Dataset, Sample, Task

LARGEST_TURN_DEGREES = 12
LARGEST_SHIFT = 0.06  # of the image's side
LARGEST_ZOOM = 0.1


@dataclasses.dataclass
class Varied:
    """Training images in random order, each slightly turned, shifted and zoomed; the same for the same seed."""

    source: Dataset
    length: int
    seed: int
    task: Task = "classification"
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        sample = self.source[int(rng.integers(len(self.source)))]
        return dataclasses.replace(sample, image=moved(sample.image, rng))


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (3, size, size) turned, shifted and zoomed at random; the digits are grey, one plane is enough."""
    size = image.shape[-1]
    angle = np.deg2rad(rng.uniform(-LARGEST_TURN_DEGREES, LARGEST_TURN_DEGREES))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn *= 1 + rng.uniform(-LARGEST_ZOOM, LARGEST_ZOOM)
    centre = np.full(2, size / 2)
    offset = centre - turn @ centre + rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * size
    coefficients = (*turn[0], offset[0], *turn[1], offset[1])
    plane = Image.fromarray(image[0]).transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.repeat(np.asarray(plane)[None], 3, axis=0)


def images(recipe: Recipe, count: int) -> Dataset:
    """Return as many varied training images as the training needs."""
    source = data.load(recipe.data, "train", recipe.seed, recipe.path.parent)
    return Varied(source, count, recipe.seed)


def loss(outputs: Tensor, samples: list[Sample]) -> Tensor:
    """Return the cross entropy of logits (n, classes)."""
    return cross_entropy(outputs, torch.cat([torch.from_numpy(sample.labels) for sample in samples]))


def main() -> None:
    """Train, evaluate and record."""
    options = training.arguments("Train MobileNetV2", "engines/mobilenet_v2-digits.toml", 1500, 3e-3)
    training.run(options, "width_mult", images, loss)


if __name__ == "__main__":
    main()
