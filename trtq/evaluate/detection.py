"""Detection accuracy: COCO's mean average precision, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trtq.data import Sample
from trtq.errors import DataError
from trtq.evaluate.decode import Detections


def mean_average_precision(
    found: Sequence[Detections], truths: Sequence[Sample], classes: Sequence[str]
) -> dict[str, float]:
    """Return `map50` (IoU 0.50) and `map50_95` (mean over IoU 0.50 to 0.95), fractions, over images in equal order.

    Raises `DataError` when no image has a box.
    """
    truth = _ground_truth(truths, classes)
    if not truth["annotations"]:
        raise DataError("the data set holds no box, so that there is no average precision")
    rows = [row for image, one in enumerate(found, start=1) for row in _rows(image, one)]
    if not rows:
        return {"map50": 0.0, "map50_95": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map50": float(evaluation.stats[1]), "map50_95": float(evaluation.stats[0])}


def _ground_truth(truths: Sequence[Sample], classes: Sequence[str]) -> dict[str, list[dict[str, object]]]:
    annotations: list[dict[str, object]] = []
    for image, sample in enumerate(truths, start=1):
        boxes = np.zeros((0, 4)) if sample.boxes is None else sample.boxes.reshape(-1, 4).astype(np.float64)
        for box, label in zip(boxes, sample.labels, strict=True):
            width, height = box[2:] - box[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [float(box[0]), float(box[1]), float(width), float(height)],
                    "area": float(width * height),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": image} for image in range(1, len(truths) + 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
        "annotations": annotations,
    }


def _rows(image: int, found: Detections) -> list[list[float]]:
    """Return [image, x, y, width, height, score, category] a detection, the array form that pycocotools reads."""
    return [
        [image, x1, y1, x2 - x1, y2 - y1, score, label + 1]
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]
