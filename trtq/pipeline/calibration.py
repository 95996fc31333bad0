"""Calibration images as files, for the back ends that look for ranges of their own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import data, ptq
from trtq.config import Mode, Recipe

# These need ranges of more tensors than a Q/DQ file quantizes.
CALIBRATED = frozenset({"ort-native"})
QUANTIZED_MODES: frozenset[Mode | None] = frozenset({"ptq", "qat"})


def wanted(backend: str, mode: Mode | None) -> bool:
    """Tell whether a back end wants calibration images for a network that is quantized already."""
    return backend in CALIBRATED and mode in QUANTIZED_MODES


@contextmanager
def saved(batches: Iterable[npt.NDArray[Any]] | None, batch: int | None = None) -> Iterator[Path | None]:
    """Save float32 batches (n, ...) as .npy files in a folder that goes with the block; None for None.

    batch: how many images each file holds; that of the first batch where it is None. Raises what `write_batches` does.
    """
    if batches is None:
        yield None
        return
    stacks = iter(batches)
    first = next(stacks, np.empty((0, 1), np.float32))
    with tempfile.TemporaryDirectory(prefix="trtq-calibration-") as scratch:
        folder = Path(scratch) / "batches"
        ptq.write_batches(itertools.chain([first], stacks), folder, batch or max(1, len(first)))
        yield folder


def images(recipe: Recipe) -> Iterator[npt.NDArray[Any]]:
    """Yield the recipe's calibration images, a batch at a time; raises what loading them raises."""
    dataset = data.load(recipe.data, "calibration", recipe.seed, recipe.path.parent)
    for batch, _ in data.batches(dataset, recipe.data.batch):
        yield batch
