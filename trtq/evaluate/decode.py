"""From a detector's raw head maps to boxes: decoding and non-maximum suppression, in NumPy.

DECODERS lists them by the `kind` in a network's decode spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq.errors import ModelError

CONFIDENCE = 0.01
NMS_IOU = 0.6
MOST_DETECTIONS = 100
MOST_CANDIDATES = 2000

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first.

    boxes: float32 (n, 4) as x1, y1, x2, y2 in pixels. scores: float32 (n,) in 0..1. labels: int64 (n,).
    """

    boxes: Array
    scores: Array
    labels: Array


def yolov7(
    outputs: Sequence[Array],
    spec: Mapping[str, Any],
    confidence: float = CONFIDENCE,
    iou: float = NMS_IOU,
    most: int = MOST_DETECTIONS,
) -> list[Detections]:
    """Decode raw maps, float (n, a * (5 + classes), h, w), one a stride of the spec, a anchors each.

    xy = (2 sigmoid - 0.5 + cell) * stride, wh = (2 sigmoid)^2 * anchor, score = sigmoid(object) * sigmoid(class):
    YOLOv7 (arXiv 2207.02696) keeps this of Scaled-YOLOv4 (arXiv 2011.08036), whose bounds remove the grid
    sensitivity of YOLOv3. Several classes above `confidence` in one place are several detections.
    Raises `ModelError` when the maps do not fit the spec.
    """
    _check(outputs, spec)
    levels = [_level(*level) for level in zip(outputs, spec["strides"], spec["anchors"], strict=True)]
    boxes, scores = (np.concatenate(parts, axis=1) for parts in zip(*levels, strict=True))
    return [_detections(*image, confidence, iou, most) for image in zip(boxes, scores, strict=True)]


DECODERS: dict[str, Callable[..., list[Detections]]] = {"yolov7": yolov7}


def decoder(spec: Mapping[str, Any]) -> Callable[..., list[Detections]]:
    """Return the decoder that the spec names; raises `ModelError` when there is none."""
    kind = spec.get("kind")
    if kind not in DECODERS:
        raise ModelError(f"outputs of kind {kind!r} cannot be decoded; known kinds are {', '.join(DECODERS)}")
    return DECODERS[kind]


def nms(boxes: Array, scores: Array, labels: Array, iou: float) -> Array:
    """Return the kept indices, best score first: a box goes when a better one of its class overlaps by more than `iou`.

    boxes (n, 4), scores (n,), labels (n,).
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        same = (labels[rest] == labels[best]) & (box_iou(boxes[best], boxes[rest]) > iou)
        order = rest[~same]
    return np.array(kept, dtype=np.int64)


def box_iou(box: Array, others: Array) -> Array:
    """Return intersection over union of one box (4,) with others (n, 4), as (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)  # type: ignore[no-any-return]


def _check(outputs: Sequence[Array], spec: Mapping[str, Any]) -> None:
    strides, anchors, classes = spec["strides"], spec["anchors"], spec["classes"]
    if len(outputs) != len(strides):
        raise ModelError(f"the network has {len(outputs)} outputs; its decode spec needs {len(strides)} head maps")
    for place, (output, row) in enumerate(zip(outputs, anchors, strict=True)):
        channels = len(row) * (5 + classes)
        if output.ndim != 4 or output.shape[1] != channels:
            raise ModelError(
                f"output {place} has shape {output.shape}; its decode spec needs (n, {channels}, h, w): "
                f"{len(row)} anchors x (5 + {classes} classes)"
            )


def _level(output: Array, stride: int, anchors: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    images, _, height, width = output.shape
    maps = _sigmoid(output.astype(np.float32)).reshape(images, len(anchors), -1, height, width)
    values = maps.transpose(0, 1, 3, 4, 2)
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    centres = (2 * values[..., :2] - 0.5 + cells) * stride
    sides = (2 * values[..., 2:4]) ** 2 * np.asarray(anchors, dtype=np.float32)[None, :, None, None]
    boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=-1)
    scores = values[..., 4:5] * values[..., 5:]
    return boxes.reshape(images, -1, 4), scores.reshape(images, -1, scores.shape[-1])


def _sigmoid(x: Array) -> Array:
    return (0.5 * (1 + np.tanh(0.5 * x))).astype(np.float32)


def _detections(boxes: Array, scores: Array, confidence: float, iou: float, most: int) -> Detections:
    places, labels = np.nonzero(scores > confidence)
    found = scores[places, labels]
    best = np.argsort(-found, kind="stable")[:MOST_CANDIDATES]
    boxes, found, labels = boxes[places[best]], found[best], labels[best]
    kept = nms(boxes, found, labels, iou)[:most]
    return Detections(boxes[kept], found[kept], labels[kept].astype(np.int64))
