"""Digit scenes, a small detection task: 1 to 6 handwritten digits on a generated canvas, with tight boxes.

A scene depends on its seed, split and index alone, so that it is never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trtq.config import DataSpec
from trtq.data import Sample, Split, Task, image_count
from trtq.data.digits import CLASSES, bundled, scaled
from trtq.errors import DataError

MOST_DIGITS = 6
DIGIT_SIZES_PX = (20, 57)
# A stroke counts as visible, and belongs inside the box, from this opacity on.
VISIBLE_OPACITY = 0.25
LEAST_CONTRAST = 0.35
MOST_OVERLAP = 0.1
PLACEMENT_TRIALS = 20
SCENE_STREAMS = {"train": 0, "calibration": 0, "validation": 1}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DigitScenes:
    """One split: `strokes` is float32 (n, 8, 8) and `digits` int64 (n,), the digits that its scenes may show."""

    strokes: Array
    digits: Array
    image_size: int
    length: int
    seed: int
    stream: int
    task: Task = "detection"
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, self.stream, index])
        return self._composed(background(rng, self.image_size), rng)

    def _composed(self, canvas: Array, rng: np.random.Generator) -> Sample:
        boxes: list[Array] = []
        labels: list[int] = []
        for _ in range(rng.integers(1, MOST_DIGITS + 1)):
            chosen = rng.integers(len(self.strokes))
            glyph = visible(scaled(self.strokes[chosen], int(rng.integers(*DIGIT_SIZES_PX))))
            box = free_place(glyph.shape, self.image_size, boxes, rng)
            if box is None:
                continue
            draw(canvas, glyph, box, rng)
            boxes.append(box)
            labels.append(int(self.digits[chosen]))
        return Sample(canvas, np.array(labels, dtype=np.int64), np.array(boxes, dtype=np.float32))


def load(spec: DataSpec, split: Split, seed: int, root: Path) -> DigitScenes:
    """Return the split's scenes: calibration scenes are the first training scenes, validation shows unseen digits.

    Raises `DataError` when the largest digit does not fit the canvas.
    """
    if spec.image_size < DIGIT_SIZES_PX[1]:
        raise DataError(f"data.image_size is {spec.image_size}; digit scenes need {DIGIT_SIZES_PX[1]} pixels or more")
    strokes, digits = bundled(split)
    return DigitScenes(strokes, digits, spec.image_size, image_count(spec, split), seed, SCENE_STREAMS[split])


def background(rng: np.random.Generator, size: int) -> Array:
    """Return a float32 (3, size, size) canvas in 0..1: a colour gradient, soft blotches and pixel noise."""
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * across[None, :] + np.sin(angle) * across[:, None]
    colour = rng.uniform(0.1, 0.9, (3, 1, 1))
    slope = rng.uniform(-0.3, 0.3, (3, 1, 1))
    coarse = rng.normal(0, rng.uniform(0, 0.12), (8, 8)).astype(np.float32)
    blotches = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    noise = rng.standard_normal((3, size, size), dtype=np.float32) * rng.uniform(0, 0.06)
    canvas: Array = np.clip(colour + slope * ramp + blotches + noise, 0, 1).astype(np.float32)
    return canvas


def visible(opacity: Array) -> Array:
    """Crop a digit's opacity (height, width) to the rectangle whose every edge has a visible stroke."""
    seen = opacity >= VISIBLE_OPACITY
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    cropped: Array = opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cropped


def free_place(shape: tuple[int, ...], size: int, taken: list[Array], rng: np.random.Generator) -> Array | None:
    """Return x1, y1, x2, y2 of a place that overlaps each taken box little, or None when the trials found none."""
    height, width = shape
    for _ in range(PLACEMENT_TRIALS):
        x, y = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
        box = np.array([x, y, x + width, y + height])
        if all(overlap(box, other) <= MOST_OVERLAP for other in taken):
            return box
    return None


def overlap(a: Array, b: Array) -> float:
    """Return the intersection of two boxes as a fraction of the smaller one's area."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    areas = np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])
    return float(np.prod(np.maximum(sides, 0)) / min(areas))


def draw(canvas: Array, glyph: Array, box: Array, rng: np.random.Generator) -> None:
    """Blend a digit into the canvas in place, in a colour that stands out from what it covers."""
    x1, y1, x2, y2 = box
    covered = canvas[:, y1:y2, x1:x2]
    behind = covered.mean(axis=(1, 2))
    colour = rng.uniform(0, 1, 3)
    if np.abs(colour - behind).mean() < LEAST_CONTRAST:
        colour = np.where(behind > 0.5, behind - rng.uniform(0.4, 0.5), behind + rng.uniform(0.4, 0.5))
    # Two strokes laid over each other thicken: thin ink of the 8x8 scans stays legible on noise.
    opacity = 1 - (1 - glyph) ** 2
    covered += opacity * (colour[:, None, None] - covered).astype(np.float32)
