"""Calibration images as files: what TensorRT's calibrator of implicit mode, up to version 10, is fed with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.errors import DataError, OutputError

SUFFIX = ".npy"


def write_batches(images: Iterable[npt.NDArray[Any]], folder: Path, batch: int) -> int:
    """Write `images` into `folder` as 00000.npy, 00001.npy, ...; return how many files there are.

    images: float32 (n, ...) of any n. Each file holds `batch` of them, as the calibrator needs; the last is filled up
    with the first images. `folder` appears whole or not at all, and replaces one of batches; same images, same bytes.
    Memory is that of two batches. Raises `DataError` where there are no images, their shapes differ or a number is not
    finite, `OutputError`.
    """
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            count = 0
            for count, stack in enumerate(_filled(images, batch), start=1):
                np.save(new / f"{count - 1:05}{SUFFIX}", stack, allow_pickle=False)
            if count == 0:
                raise DataError("there are no calibration images; check data.path and data.calibration_images")
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{folder}: cannot be written ({reason}); free some space or choose another folder"
        ) from error
    return count


def _filled(images: Iterable[npt.NDArray[Any]], batch: int) -> Iterator[npt.NDArray[Any]]:
    """Yield stacks of exactly `batch` images."""
    waiting: npt.NDArray[Any] | None = None
    first: npt.NDArray[Any] | None = None
    for stack in images:
        _check(stack, first)
        waiting = stack if waiting is None else np.concatenate([waiting, stack])
        first = waiting[:batch].copy() if first is None or len(first) < batch else first
        while len(waiting) >= batch:
            yield np.ascontiguousarray(waiting[:batch], np.float32)
            waiting = waiting[batch:]
    if waiting is not None and first is not None and len(waiting):
        missing = np.arange(batch - len(waiting)) % len(first)
        yield np.concatenate([waiting, first[missing]]).astype(np.float32, copy=False)


def _check(stack: npt.NDArray[Any], first: npt.NDArray[Any] | None) -> None:
    if first is not None and stack.shape[1:] != first.shape[1:]:
        raise DataError(f"a calibration image is {list(stack.shape[1:])}, and those before {list(first.shape[1:])}")
    if not np.isfinite(stack).all():
        raise DataError("a calibration image holds NaN or infinity; check the data and its transforms")


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or any(path.suffix != SUFFIX for path in folder.iterdir()):
        raise OutputError(f"{folder}: holds something else than {SUFFIX} batches; choose another folder")
