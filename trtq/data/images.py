"""Images for any network, without a recipe: a folder of pictures, an array, or a recipe's calibration images."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.config import load_recipe
from trtq.data import load
from trtq.errors import DataError, MissingBackendError

try:
    from PIL import Image
except ImportError:
    Image = None  # type: ignore[assignment]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
ARRAYS = (".npy", ".npz")
COLOURS = 3


class Batches:
    """Float32 batches (n, ...) of images, read when they are asked for, as often as they are; len() counts batches."""

    def __init__(self, count: int, read: Callable[[int], npt.NDArray[Any]], batch: int) -> None:
        self.images = count
        self._read = read
        self._batch = batch

    def __len__(self) -> int:
        return math.ceil(self.images / self._batch)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, self.images, self._batch):
            yield np.stack([self._read(index) for index in range(start, min(start + self._batch, self.images))])


def load_images(source: Path, shape: Sequence[int], limit: int | None = None) -> Batches:
    """Return float32 batches (n, ...) for a network whose input has `shape`; a dimension of -1 is free.

    source: a folder of pictures (sub-folders too, in order of their paths), each as RGB in 0..1, resized to the
    network's height and width; a .npy file, or an .npz file of one array, (images, ...), as the network takes it; or a
    recipe (.toml), whose calibration images are taken. n is the network's batch, 1 where that is free; the last may be
    smaller. Arrays are never unpickled. limit: take the first so many images only.
    Raises `DataError` for what cannot be used, at once where it shows without reading every image; `ConfigError` for a
    recipe that is wrong; `MissingBackendError` without Pillow.
    """
    if not shape:
        raise DataError("the network's input has no dimensions; images need a network that takes a batch of them")
    if not source.exists():
        raise DataError(f"{source}: no such folder or file; give images")
    if source.is_dir():
        return _batches(*_pictures(source, shape), shape, limit)
    if source.suffix.lower() in ARRAYS:
        array = _array(source, shape)
        return _batches(len(array), lambda index: _finite(source, np.asarray(array[index], np.float32)), shape, limit)
    if source.suffix.lower() == ".toml":
        return _batches(*_calibration(source, shape), shape, limit)
    raise DataError(f"{source}: is neither a folder of pictures nor a .npy, .npz or recipe (.toml) file")


_Read = Callable[[int], npt.NDArray[Any]]


def _batches(count: int, read: _Read, shape: Sequence[int], limit: int | None) -> Batches:
    return Batches(count if limit is None else min(count, limit), read, shape[0] if shape[0] > 0 else 1)


def _pictures(folder: Path, shape: Sequence[int]) -> tuple[int, _Read]:
    if Image is None:
        raise MissingBackendError("pictures are read with Pillow, which is not installed; run `pip install trtq[ort]`")
    if len(shape) != 4 or shape[1] not in (COLOURS, -1) or min(shape[2:]) < 1:
        raise DataError(
            f"{folder}: pictures need an input of {COLOURS} colours and a fixed size, but the network takes"
            f" {_text(shape)}; give an array (.npy) as it takes it"
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)})")
    return len(files), lambda index: _picture(files[index], shape[3], shape[2])


def _picture(file: Path, width: int, height: int) -> npt.NDArray[Any]:
    """Return one picture as float32 (3, height, width) in 0..1."""
    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as an image; repair or remove it") from error
    return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255


def _array(file: Path, shape: Sequence[int]) -> npt.NDArray[Any]:
    array = _read(file)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{file}: holds {array.dtype}; give float values as the network takes them, pictures in 0..1")
    if array.ndim != len(shape) or not _fits(array.shape[1:], shape[1:]):
        raise DataError(f"{file}: has the shape {_text(array.shape)}, but the network takes {_text(shape)}")
    if not len(array):
        raise DataError(f"{file}: holds no image")
    return array


def _read(file: Path) -> npt.NDArray[Any]:
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) == 1:
                return np.asarray(loaded[names[0]])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: is not a plain array (objects are not read); save one with numpy.save") from error
    raise DataError(f"{file}: holds {len(names)} arrays; save the images alone")


def _calibration(recipe_file: Path, shape: Sequence[int]) -> tuple[int, _Read]:
    recipe = load_recipe(recipe_file)
    images = load(recipe.data, "calibration", recipe.seed, recipe.path.parent)
    if not len(images):
        raise DataError(f"{recipe_file}: its data set is empty; check data.path and data.calibration_images")
    first = images[0].image
    if first.ndim + 1 != len(shape) or not _fits(first.shape, shape[1:]):
        raise DataError(
            f"{recipe_file}: its images are {_text(first.shape)}, but the network takes {_text(shape[1:])};"
            " set data.image_size"
        )
    return len(images), lambda index: images[index].image


def _finite(file: Path, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(image).all():
        raise DataError(f"{file}: holds NaN or infinity; repair or remove those images")
    return image


def _fits(dims: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(want in (-1, have) for have, want in zip(dims, wanted, strict=True))


def _text(shape: Sequence[int]) -> str:
    return " x ".join("any" if size < 0 else str(size) for size in shape)
