from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trtq.config import DataSpec
from trtq.data import load
from trtq.data.digit_scenes import MOST_OVERLAP, SCENE_STREAMS, background, overlap
from trtq.data.digits import bundled
from trtq.errors import DataError

SIZE_PX = 160
SPEC = DataSpec("digit-scenes", image_size=SIZE_PX)
SCENES = range(60)


def scenes(split: Any = "validation", seed: int = 0) -> Any:
    return load(SPEC, split, seed, Path())


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    backwards = [scenes()[index].image.tobytes() for index in reversed(SCENES)][::-1]
    assert backwards == [scenes()[index].image.tobytes() for index in SCENES]
    assert len(set(backwards)) == len(SCENES)
    assert scenes(seed=1)[0].image.tobytes() != backwards[0]


def test_calibration_scenes_are_the_first_training_scenes() -> None:
    training, calibration = scenes("train"), scenes("calibration")
    assert len(calibration) == 128
    np.testing.assert_array_equal(training[5].image, calibration[5].image)
    assert scenes("validation")[5].image.tobytes() != training[5].image.tobytes()


def test_scenes_show_only_the_digits_of_their_split() -> None:
    for split in ("train", "validation"):
        strokes, labels = bundled(split)
        np.testing.assert_array_equal(scenes(split).strokes, strokes)
        np.testing.assert_array_equal(scenes(split).digits, labels)


def test_boxes_are_tight_around_what_was_drawn() -> None:
    for index in SCENES:
        sample = scenes()[index]
        canvas = background(np.random.default_rng([0, SCENE_STREAMS["validation"], index]), SIZE_PX)
        drawn = np.abs(sample.image - canvas).max(axis=0)
        outside = np.ones((SIZE_PX, SIZE_PX), dtype=bool)
        for x1, y1, x2, y2 in sample.boxes.astype(int):
            outside[y1:y2, x1:x2] = False
            inside = drawn[y1:y2, x1:x2]
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(edge.max() > 0.05 for edge in edges)
        assert drawn[outside].max() == 0


def test_scenes_hold_one_to_six_legal_boxes_that_hardly_overlap() -> None:
    counts = set()
    for index in SCENES:
        sample = scenes()[index]
        boxes = sample.boxes
        counts.add(len(boxes))
        assert sample.image.shape == (3, SIZE_PX, SIZE_PX) and sample.image.dtype == np.float32
        assert sample.image.min() >= 0 and sample.image.max() <= 1
        assert boxes.dtype == np.float32 and boxes.shape == (len(sample.labels), 4)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= SIZE_PX
        whole = boxes.astype(int)
        pairs = [(a, b) for place, a in enumerate(whole) for b in whole[:place]]
        assert all(overlap(a, b) <= MOST_OVERLAP for a, b in pairs)
    assert counts == {1, 2, 3, 4, 5, 6}


def test_there_is_no_scene_beyond_the_last() -> None:
    with pytest.raises(IndexError):
        scenes()[512]


def test_a_canvas_smaller_than_a_digit_is_refused() -> None:
    with pytest.raises(DataError, match="image_size is 32"):
        load(DataSpec("digit-scenes", image_size=32), "train", 0, Path())
