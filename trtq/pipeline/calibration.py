"""Calibration images as files, for the back ends that look for ranges of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import data
from trtq.config import Mode, Recipe

# These need ranges of more tensors than a Q/DQ file quantizes.
CALIBRATED = frozenset({"ort-native"})
QUANTIZED_MODES: frozenset[Mode | None] = frozenset({"ptq", "qat"})


def wanted(backend: str, mode: Mode | None) -> bool:
    """Tell whether a back end wants calibration images for a network that is quantized already."""
    return backend in CALIBRATED and mode in QUANTIZED_MODES


@contextmanager
def saved(batches: Iterable[npt.NDArray[Any]] | None) -> Iterator[Path | None]:
    """Save float32 batches (n, ...) as .npy files, numbered, in a folder that goes with the block; None for None."""
    if batches is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="trtq-calibration-") as folder:
        for number, batch in enumerate(batches):
            np.save(Path(folder) / f"{number:06}.npy", np.asarray(batch, np.float32))
        yield Path(folder)


def images(recipe: Recipe) -> Iterator[npt.NDArray[Any]]:
    """Yield the recipe's calibration images, a batch at a time; raises what loading them raises."""
    dataset = data.load(recipe.data, "calibration", recipe.seed, recipe.path.parent)
    for batch, _ in data.batches(dataset, recipe.data.batch):
        yield batch
