"""Accuracy of anything that maps arrays to arrays, handed in as a function: a torch module, a session, an engine.

METRICS lists one evaluation a task; each value is `module:function`, imported when asked for, because a metric may
need a package that the core does not install.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.data import Dataset, Sample, Task, batches
from trtq.errors import MissingBackendError, ModelError
from trtq.evaluate.decode import decoder

METRICS: dict[Task, str] = {
    "classification": "trtq.evaluate.classification:top_accuracy",
    "detection": "trtq.evaluate.detection:mean_average_precision",
}

Run = Callable[[npt.NDArray[Any]], Sequence[npt.NDArray[Any]]]
Progress = Callable[[int, int], None]


def evaluate(
    run: Run,
    dataset: Dataset,
    *,
    batch: int,
    decode: Mapping[str, Any] | None,
    progress: Progress | None = None,
) -> dict[str, float | int]:
    """Return the accuracy of `run` as fractions, and `images`, how many were used.

    `run` maps float32 (batch, 3, h, w) to its outputs; the last batch is filled up by repeating its last image, so
    that a network of fixed batch can be evaluated. Detection (`decode`: the network's decode spec) gives `map50` and
    `map50_95`, classification `top1` and `top5`. `progress(done, total)` is called after each batch, in images.
    Raises `DataError` for an empty data set, `ModelError` when outputs fit neither the spec nor the classes.
    """
    metric = _metric(dataset.task)
    outputs = _outputs(run, dataset, batch, progress)
    if dataset.task == "detection":
        return {**_detection(outputs, dataset, decode, metric), "images": len(dataset)}
    return {**_classification(outputs, dataset, metric), "images": len(dataset)}


def _metric(task: Task) -> Callable[..., dict[str, float]]:
    module, function = METRICS[task].split(":")
    try:
        metric: Callable[..., dict[str, float]] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise MissingBackendError(
            f"{task} accuracy needs the package '{error.name}'; pip install 'trtq[ort]'"
        ) from error
    return metric


def _outputs(
    run: Run, dataset: Dataset, batch: int, progress: Progress | None
) -> Iterator[tuple[list[npt.NDArray[Any]], list[Sample]]]:
    done = 0
    for images, samples in batches(dataset, batch):
        filled = np.concatenate((images, np.repeat(images[-1:], batch - len(images), axis=0)))
        outputs = [np.asarray(output) for output in run(filled)]
        for place, output in enumerate(outputs):
            if output.shape[:1] != (batch,):
                raise ModelError(f"output {place} has shape {output.shape}; {batch} images went in")
        done += len(samples)
        if progress is not None:
            progress(done, len(dataset))
        yield [output[: len(samples)] for output in outputs], samples


def _detection(
    outputs: Iterator[tuple[list[npt.NDArray[Any]], list[Sample]]],
    dataset: Dataset,
    decode: Mapping[str, Any] | None,
    metric: Callable[..., dict[str, float]],
) -> dict[str, float]:
    if decode is None:
        raise ModelError("the data set has boxes, but the network has no decode spec; use a detector from the zoo")
    if decode.get("classes") != len(dataset.classes):
        raise ModelError(f"the network has {decode.get('classes')} classes, the data set {len(dataset.classes)}")
    read = decoder(decode)
    found, truths = [], []
    for maps, samples in outputs:
        found += read(maps, decode)
        truths += [dataclasses.replace(sample, image=np.empty(0)) for sample in samples]
    return metric(found, truths, dataset.classes)


def _classification(
    outputs: Iterator[tuple[list[npt.NDArray[Any]], list[Sample]]],
    dataset: Dataset,
    metric: Callable[..., dict[str, float]],
) -> dict[str, float]:
    logits: list[npt.NDArray[Any]] = []
    labels: list[int] = []
    for arrays, samples in outputs:
        if len(arrays) != 1 or arrays[0].shape[1:] != (len(dataset.classes),):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ModelError(f"the network returns {shapes}; classification needs (n, {len(dataset.classes)})")
        logits.append(arrays[0])
        labels += [int(sample.labels[0]) for sample in samples]
    return metric(np.concatenate(logits), labels)
