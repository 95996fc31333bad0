"""Where images come from: data sets as sequences of samples, in NumPy alone.

DATASETS lists them by the name that a recipe uses; each value is `module:function`, imported when asked for,
because a data set may need a package that the core does not install.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from trtq.config import DataSpec, did_you_mean
from trtq.errors import DataError, MissingBackendError

Split = Literal["train", "calibration", "validation"]
Task = Literal["classification", "detection"]

DATASETS: dict[str, str] = {
    "digits": "trtq.data.digits:load",
    "digit-scenes": "trtq.data.digit_scenes:load",
    "folder": "trtq.data.folder:load",
}


@dataclass(frozen=True)
class Sample:
    """One image and its truth.

    image: float32 (3, height, width) in 0..1. labels: int64 (n,), one for classification.
    boxes: float32 (n, 4) as x1, y1, x2, y2 in pixels, or None for classification.
    """

    image: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    boxes: npt.NDArray[Any] | None = None


class Dataset(Protocol):
    """A finite, indexable, deterministic sequence of samples."""

    @property
    def task(self) -> Task:
        """What its labels are for."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def load(spec: DataSpec, split: Split, seed: int, root: Path) -> Dataset:
    """Return one split of the data set that `spec` names; relative paths in `spec` start at `root`.

    Raises `DataError` for an unknown name or unusable data, `MissingBackendError` when a package is not installed.
    """
    if spec.name not in DATASETS:
        hint = did_you_mean(spec.name, DATASETS) or f"; it must be one of {', '.join(DATASETS)}"
        raise DataError(f"data.name '{spec.name}' is not known{hint}")
    module, function = DATASETS[spec.name].split(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise MissingBackendError(
            f"the data set '{spec.name}' needs the package '{error.name}'; pip install 'trtq[ort]'"
        ) from error
    dataset: Dataset = build(spec, split, seed, root)
    return dataset


def batches(dataset: Dataset, batch: int) -> Iterator[tuple[npt.NDArray[Any], list[Sample]]]:
    """Yield images as float32 (n, 3, height, width) beside their samples, in order; the last n may be below `batch`.

    Raises `DataError` when there is nothing to yield.
    """
    if len(dataset) == 0:
        raise DataError("the data set is empty; check data.path and the number of images in the recipe")
    for start in range(0, len(dataset), batch):
        samples = [dataset[index] for index in range(start, min(start + batch, len(dataset)))]
        yield np.stack([sample.image for sample in samples]), samples


def image_count(spec: DataSpec, split: Split) -> int:
    """Return how many images the recipe asks for in this split."""
    counts = {
        "train": spec.train_images,
        "calibration": spec.calibration_images,
        "validation": spec.validation_images,
    }
    return counts[split]
