"""A folder of images as classification: one sub-folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from trtq.config import DataSpec
from trtq.data import Sample, Split, Task, image_count
from trtq.data.images import SUFFIXES
from trtq.errors import DataError

VALIDATION_NAMES = ("validation", "val")
VALIDATION_EVERY = 5


@dataclass(frozen=True)
class ImageFolder:
    """One split: image files and their class numbers; files are read when asked for."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    image_size: int
    classes: tuple[str, ...]
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        try:
            with Image.open(self.files[index]) as image:
                square = ImageOps.fit(image.convert("RGB"), (self.image_size, self.image_size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.files[index]}: cannot be read as an image; repair or remove it") from error
        pixels = np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / 255
        return Sample(np.ascontiguousarray(pixels), np.array([self.labels[index]], dtype=np.int64))


def load(spec: DataSpec, split: Split, seed: int, root: Path) -> ImageFolder:
    """Return a split of the images below `spec.path`, the shorter side scaled to `spec.image_size`, centre cropped.

    With sub-folders `train` and `validation` (or `val`) each holds its own split; else every fifth image of each
    class, shuffled by `seed`, is for validation. Calibration images are taken from training.
    Raises `DataError` when the path is not given or not a folder, or holds no class or no image.
    """
    if spec.path is None:
        raise DataError("the data set 'folder' needs data.path, a folder with one sub-folder a class")
    top = root / spec.path
    if not top.is_dir():
        raise DataError(f"{top}: is not a folder; set data.path to one with a sub-folder a class")
    training = top / "train"
    kept_apart = next((top / name for name in VALIDATION_NAMES if (top / name).is_dir()), None)
    if training.is_dir() and kept_apart is not None:
        classes, source = _classes(training), kept_apart if split == "validation" else training
        found = [(file, label) for label, name in enumerate(classes) for file in _images(source / name)]
    else:
        classes, source = _classes(top), top
        found = [
            (file, label)
            for label, name in enumerate(classes)
            for file in _share(_images(top / name), split == "validation", seed)
        ]
    if not found:
        raise DataError(f"{source}: holds no image for {split} in sub-folders, one a class ({', '.join(SUFFIXES)})")
    order = np.random.default_rng(seed).permutation(len(found))[: image_count(spec, split)]
    files, labels = zip(*(found[index] for index in order), strict=True)
    return ImageFolder(files, labels, spec.image_size, classes)


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _share(images: list[Path], validation: bool, seed: int) -> list[Path]:
    shuffled = [images[index] for index in np.random.default_rng(seed).permutation(len(images))]
    last = VALIDATION_EVERY - 1
    return [file for place, file in enumerate(shuffled) if (place % VALIDATION_EVERY == last) == validation]
