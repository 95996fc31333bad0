"""Handwritten digits as classification: scikit-learn's bundled 8x8 images, scaled up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from trtq.config import DataSpec
from trtq.data import Sample, Split, Task, image_count

CLASSES = tuple("0123456789")
VALIDATION_DIGITS = 540
# Not the recipe's seed: a shipped checkpoint has seen the training digits, whatever seed evaluates it.
SPLIT_SEED = 1797


@dataclass(frozen=True)
class Digits:
    """One split: `strokes` is float32 (n, 8, 8) in 0..1, `labels` int64 (n,); images are scaled when asked for."""

    strokes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    image_size: int
    task: Task = "classification"
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.strokes)

    def __getitem__(self, index: int) -> Sample:
        grey = scaled(self.strokes[index], self.image_size)
        return Sample(np.repeat(grey[None], 3, axis=0), self.labels[index : index + 1])


def load(spec: DataSpec, split: Split, seed: int, root: Path) -> Digits:
    """Return at most the number of images that `spec` asks for; calibration images are taken from training."""
    strokes, labels = bundled(split)
    chosen = np.random.default_rng(seed).permutation(len(strokes))[: image_count(spec, split)]
    return Digits(strokes[chosen], labels[chosen], spec.image_size)


def bundled(split: Split) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the digits of a split as float32 (n, 8, 8) in 0..1 and int64 (n,).

    1257 are for training and calibration, 540 for validation; the split never changes.
    """
    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.images))
    chosen = order[:VALIDATION_DIGITS] if split == "validation" else order[VALIDATION_DIGITS:]
    return (digits.images[chosen] / 16).astype(np.float32), digits.target[chosen].astype(np.int64)


def scaled(stroke: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Scale one float32 (8, 8) digit to (size, size), bicubic, clipped to 0..1."""
    image = Image.fromarray(stroke).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, dtype=np.float32), 0, 1)
