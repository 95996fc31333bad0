from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtq.errors import ModelError
from trtq.evaluate.decode import box_iou, decoder, nms, yolov7

SPEC: dict[str, Any] = {
    "kind": "yolov7",
    "strides": [8, 16],
    "anchors": [[[10.0, 14.0], [20.0, 12.0]], [[40.0, 30.0], [25.0, 60.0]]],
    "classes": 3,
}


def random_maps(seed: int, images: int = 2) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (images, 16, side, side)).astype(np.float32) for side in (6, 3)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(maps: list[Any], image: int, confidence: float) -> list[tuple[float, ...]]:
    """Every box above `confidence`, number by number."""
    found = []
    for raw, stride, anchors in zip(maps, SPEC["strides"], SPEC["anchors"], strict=True):
        for a, (anchor_w, anchor_h) in enumerate(anchors):
            for row in range(raw.shape[2]):
                for column in range(raw.shape[3]):
                    p = [sigmoid(float(raw[image, a * 8 + channel, row, column])) for channel in range(8)]
                    x, y = (p[0] * 2 - 0.5 + column) * stride, (p[1] * 2 - 0.5 + row) * stride
                    w, h = (p[2] * 2) ** 2 * anchor_w, (p[3] * 2) ** 2 * anchor_h
                    for label in range(3):
                        score = p[4] * p[5 + label]
                        if score > confidence:
                            found.append((score, label, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_box_equals_the_formula_worked_by_hand(seed: int) -> None:
    maps = random_maps(seed)
    detections = yolov7(maps, SPEC, confidence=0.1, iou=1.0, most=10_000)
    for image, found in enumerate(detections):
        expected = np.array(by_hand(maps, image, 0.1))
        assert len(expected) > 20
        np.testing.assert_allclose(found.scores, expected[:, 0], rtol=1e-5)
        np.testing.assert_array_equal(found.labels, expected[:, 1])
        np.testing.assert_allclose(found.boxes, expected[:, 2:], rtol=1e-4, atol=1e-3)


def test_saturated_maps_give_finite_boxes_without_a_warning() -> None:
    maps = [np.full((1, 16, 2, 2), value, dtype=np.float32) for value in (1e4, -1e4)]
    with np.errstate(all="raise"):
        (found,) = yolov7(maps, SPEC)
    assert np.isfinite(found.boxes).all() and found.scores.max() == 1


def test_nothing_found_is_empty_arrays() -> None:
    (found,) = yolov7([np.full((1, 16, 2, 2), -20.0, dtype=np.float32)] * 2, SPEC)
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.labels.shape == (0,)


coordinates = st.floats(0, 100, width=32)
candidates = st.lists(
    st.tuples(coordinates, coordinates, st.floats(1, 50, width=32), st.floats(1, 50, width=32), st.integers(0, 2)),
    max_size=30,
)


@settings(deadline=None)
@given(candidates, st.floats(0.1, 0.9), st.randoms(use_true_random=False))
def test_nms_keeps_the_best_and_drops_exactly_what_a_better_kept_box_covers(
    rows: list[Any], iou: float, random: Any
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.array([row[4] for row in rows], dtype=np.int64)
    scores = np.array([random.random() for _ in rows], dtype=np.float32)
    kept = list(nms(boxes, scores, labels, iou))
    assert [scores[one] for one in kept] == sorted((scores[one] for one in kept), reverse=True)
    for one in range(len(rows)):
        better = [k for k in kept if labels[k] == labels[one] and k != one and scores[k] >= scores[one]]
        covered = any(box_iou(boxes[k], boxes[one : one + 1])[0] > iou for k in better)
        assert (one in kept) != covered


def test_iou_of_known_boxes() -> None:
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], dtype=np.float32)
    np.testing.assert_allclose(box_iou(others[0], others), [1, 1 / 3, 0])


def test_maps_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="1 outputs; its decode spec needs 2"):
        yolov7(random_maps(0)[:1], SPEC)
    with pytest.raises(ModelError, match=r"output 1 has shape \(1, 15, 3, 3\).*\(n, 16, h, w\)"):
        yolov7([random_maps(0)[0][:1], np.zeros((1, 15, 3, 3))], SPEC)
    with pytest.raises(ModelError, match="kind 'ssd' cannot be decoded"):
        decoder({"kind": "ssd"})
