from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trtq.config import DataSpec
from trtq.data import Sample, Task, load
from trtq.errors import DataError, ModelError
from trtq.evaluate import evaluate
from trtq.evaluate.classification import top_accuracy
from trtq.evaluate.decode import Detections
from trtq.evaluate.detection import mean_average_precision

STRIDE = 8
# One anchor of 48 px: sides of digits lie within the (2 sigmoid)^2 range, 0 to 4 times it.
SPEC = {"kind": "yolov7", "strides": [STRIDE], "anchors": [[[48.0, 48.0]]], "classes": 10}
SCENES = load(DataSpec("digit-scenes", image_size=160, validation_images=21), "validation", 0, Path())


def logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def perfect_map(sample: Sample) -> Any:
    """The raw head map that decodes to exactly the sample's boxes."""
    raw = np.full((15, 20, 20), -30.0)
    assert sample.boxes is not None
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        column, row = (centre // STRIDE).astype(int)
        raw[:2, row, column] = logit((centre / STRIDE - (column, row) + 0.5) / 2)
        raw[2:4, row, column] = logit(np.sqrt(sides / 48) / 2)
        raw[4, row, column] = raw[5 + label, row, column] = 30
    return raw


def perfect(images: Any) -> list[Any]:
    known = {SCENES[index].image.tobytes(): SCENES[index] for index in range(len(SCENES))}
    return [np.stack([perfect_map(known[image.tobytes()]) for image in images])]


def test_perfect_maps_have_map_one_also_with_a_last_batch_to_fill() -> None:
    calls: list[tuple[int, int]] = []
    sizes: list[int] = []

    def run(images: Any) -> list[Any]:
        sizes.append(len(images))
        return perfect(images)

    result = evaluate(run, SCENES, batch=8, decode=SPEC, progress=lambda done, total: calls.append((done, total)))
    assert result == {"map50": 1.0, "map50_95": pytest.approx(1.0), "images": 21}
    assert sizes == [8, 8, 8]
    assert calls == [(8, 21), (16, 21), (21, 21)]


def test_empty_and_shifted_predictions_score_as_they_should() -> None:
    nothing = evaluate(lambda images: [np.full((len(images), 15, 20, 20), -30.0)], SCENES, batch=8, decode=SPEC)
    assert nothing == {"map50": 0.0, "map50_95": 0.0, "images": 21}
    truths = [SCENES[index] for index in range(len(SCENES))]
    # A quarter of its width to the side, a box has IoU 0.6: it counts at 0.50, 0.55 and (rounding decides) 0.60.
    found = []
    for truth in truths:
        assert truth.boxes is not None
        shift = (truth.boxes[:, 2] - truth.boxes[:, 0]) * 0.24
        boxes = truth.boxes + np.stack((shift, 0 * shift, shift, 0 * shift), axis=1)
        found.append(Detections(boxes, np.ones(len(boxes)), truth.labels))
    shifted = mean_average_precision(found, truths, SCENES.classes)
    assert shifted == {"map50": pytest.approx(1.0), "map50_95": pytest.approx(0.3)}
    wrong = [replace(one, labels=(one.labels + 1) % 10) for one in found]
    assert mean_average_precision(wrong, truths, SCENES.classes)["map50"] < 0.2


def test_pycocotools_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(perfect, SCENES, batch=21, decode=SPEC)
    assert capsys.readouterr() == ("", "")


def test_top_accuracy_of_known_logits() -> None:
    logits = np.eye(10)[[3, 4, 5, 6]] + np.linspace(0, 0.1, 10)
    assert top_accuracy(logits, [3, 4, 9, 0]) == {"top1": 0.5, "top5": 0.75}


DIGITS = load(DataSpec("digits", image_size=16, validation_images=30), "validation", 0, Path())


def test_a_classifier_that_knows_everything_is_always_right() -> None:
    known = {DIGITS[index].image.tobytes(): int(DIGITS[index].labels[0]) for index in range(len(DIGITS))}

    def run(images: Any) -> list[Any]:
        return [np.eye(10)[[known[image.tobytes()] for image in images]]]

    assert evaluate(run, DIGITS, batch=7, decode=None) == {"top1": 1.0, "top5": 1.0, "images": 30}


@dataclass
class Nothing:
    task: Task
    classes: tuple[str, ...] = ("a",)
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((3, 8, 8), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def test_empty_data_are_refused() -> None:
    with pytest.raises(DataError, match="data set is empty"):
        evaluate(lambda images: [images], Nothing("classification"), batch=4, decode=None)
    with pytest.raises(DataError, match="holds no box"):
        spec = {**SPEC, "classes": 1}
        run = lambda images: [np.zeros((len(images), 6, 1, 1))]  # noqa: E731
        evaluate(run, Nothing("detection", length=3), batch=4, decode=spec)


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="has no decode spec"):
        evaluate(perfect, SCENES, batch=8, decode=None)
    with pytest.raises(ModelError, match="3 classes, the data set 10"):
        evaluate(perfect, SCENES, batch=8, decode={**SPEC, "classes": 3})
    with pytest.raises(ModelError, match=r"\(7, 9\); classification needs \(n, 10\)"):
        evaluate(lambda images: [np.zeros((7, 9))], DIGITS, batch=7, decode=None)
    with pytest.raises(ModelError, match="8 images went in"):
        evaluate(lambda images: [np.zeros((1, 10))], DIGITS, batch=8, decode=None)
