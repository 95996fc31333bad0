"""Classification accuracy: how often the true class is the best, or among the five best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOP = 5


def top_accuracy(logits: npt.NDArray[Any], labels: Sequence[int]) -> dict[str, float]:
    """Return `top1` and `top5`, fractions, of logits (n, classes); with fewer than five classes `top5` is 1."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    right = order == np.asarray(labels)[:, None]
    return {"top1": float(right[:, 0].mean()), "top5": float(right.any(axis=1).mean())}
