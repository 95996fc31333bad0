"""Collect: histograms of any tensors over images, streamed through ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from trtq import backends
from trtq.errors import DataError, ModelError
from trtq.ptq.histogram import Histogram
from trtq.ptq.observe import showing
from trtq.ptq.ranges import Progress, counted, feeds, sizes_of
from trtq.qdq import model as onnx_file
from trtq.qdq import reading

Array = npt.NDArray[Any]
MEMORY_MIB = 512
FLOAT32_BYTES = 4


def collect_histograms(
    model: ir.Model,
    groups: Sequence[Sequence[str]],
    images: Iterable[npt.NDArray[Any]],
    *,
    threads: int = 1,
    memory_mib: int = MEMORY_MIB,
    progress: Progress | None = None,
) -> tuple[Histogram, ...]:
    """Return for each group of tensors one histogram of all their magnitudes over all images.

    images: float32 batches (n, ...) for the network's only input, read once. Memory is one batch, the histograms and
    the activations that are asked for; where those would be more than `memory_mib`, they are asked for in parts, each
    of which runs the network again. The result depends neither on batches nor on parts.
    progress: called with how many batches are done, and of how many, where `images` has a length.
    Raises `ModelError` for a tensor that the network lacks or that is not finite, `DataError` when there are no images
    or one is not finite, `MissingBackendError` without ONNX Runtime.
    """
    found: dict[str, list[Histogram]] = {}
    histograms = tuple(Histogram() for _ in groups)
    for histogram, group in zip(histograms, groups, strict=True):
        for tensor in dict.fromkeys(group):
            found.setdefault(tensor, []).append(histogram)
    stream = counted(images, progress)
    first = next(stream, None)
    if first is None:
        raise DataError("there are no calibration images; give at least one")
    parts = _parts(sizes_of(model, list(found), first), memory_mib << 20)
    sessions = [_session(model, part, threads) for part in parts]
    for feed, real in feeds(sessions[0], _again(first, stream)):
        for session, part in zip(sessions, parts, strict=True):
            values = {**session.run(feed), **feed}
            for tensor in part:
                _count(found[tensor], tensor, _without_filling(values[tensor], feed, real))
    return histograms


def _again(first: npt.NDArray[Any], rest: Iterator[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    yield first
    del first
    yield from rest


def _parts(sizes: Mapping[str, int], limit_bytes: int) -> list[list[str]]:
    """Return the tensors in parts of `limit_bytes` at most, or of one tensor; one empty part where there are none."""
    parts: list[list[str]] = [[]]
    room = limit_bytes
    for tensor, size in sizes.items():
        needed = size * FLOAT32_BYTES
        if parts[-1] and needed > room:
            parts.append([])
            room = limit_bytes
        parts[-1].append(tensor)
        room -= needed
    return parts


def _session(model: ir.Model, tensors: Sequence[str], threads: int) -> backends.Session:
    fed = {reading.name(value) for value in model.graph.inputs}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        onnx_file.save(showing(model, [tensor for tensor in tensors if tensor not in fed]), path)
        return backends.runner("ort").load(path, threads=threads)


def _without_filling(values: Array, feed: Mapping[str, Array], real: int) -> Array:
    """Return `values` without the images that only fill a fixed batch up, where its first dimension is the batch."""
    (images,) = feed.values()
    return values[:real] if values.ndim and len(values) == len(images) else values


def _count(histograms: Sequence[Histogram], tensor: str, values: Array) -> None:
    try:
        for histogram in histograms:
            histogram.add(values)
    except ValueError as error:
        raise ModelError(
            f"tensor '{tensor}' is not finite on a calibration image; check the network's weights"
        ) from error
