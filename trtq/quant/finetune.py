"""Finetune: quantization-aware training by distillation from the float twin; no labels needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from trtq.config import FinetuneSpec
from trtq.data import Dataset
from trtq.errors import DataError, ModelError
from trtq.quant.calibrate import Progress, check_ranges
from trtq.quant.export import native_fake_quant
from trtq.quant.insert import Quantized

GRADIENT_NORM = 10.0


def finetune(
    quantized: Quantized,
    teacher: nn.Module,
    dataset: Dataset,
    spec: FinetuneSpec,
    *,
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Train `quantized` in place to give the outputs of `teacher`, its float twin; return the loss of each iteration.

    Ranges stay as calibrated, so tied scales stay equal; BatchNorm is folded already. AdamW, linear warm-up, cosine
    decay to zero. The same seed, threads and machine give the same weights.
    Raises `DataError` for an empty data set, `ModelError` without ranges or when the loss stops being finite.
    """
    if not len(dataset):
        raise DataError("the training set is empty; give at least one image")
    check_ranges(quantized)
    parameters = [one for one in quantized.module.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, spec))
    losses: list[float] = []
    teacher.eval()
    with native_fake_quant():
        for images in _shuffled(dataset, spec, seed):
            with torch.no_grad():
                truth = _outputs(teacher(images))
            loss = distance(_outputs(quantized.module(images)), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ModelError("fine-tuning diverged; lower finetune.learning_rate in the recipe")
            if progress is not None:
                progress(len(losses), spec.iterations)
    return losses


def distance(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean over outputs of squared error by the teacher's power: the inverse of a linear SQNR."""
    terms = [
        torch.mean((one - other) ** 2) / torch.mean(other**2).clamp_min(1e-12)
        for one, other in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()


def _rate(step: int, spec: FinetuneSpec) -> float:
    if step < spec.warmup_iterations:
        return (step + 1) / spec.warmup_iterations
    done = (step - spec.warmup_iterations) / max(1, spec.iterations - spec.warmup_iterations)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _shuffled(dataset: Dataset, spec: FinetuneSpec, seed: int) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(seed)
    queue: list[int] = []
    for _ in range(spec.iterations):
        while len(queue) < spec.batch:
            queue.extend(rng.permutation(len(dataset)).tolist())
        chosen, queue = queue[: spec.batch], queue[spec.batch :]
        yield torch.from_numpy(np.stack([dataset[i].image for i in chosen]))


def _outputs(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [tensor for one in values for tensor in _outputs(one)]
