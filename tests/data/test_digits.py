from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trtq.config import DataSpec
from trtq.data import DATASETS, batches, load
from trtq.data.digits import bundled, scaled
from trtq.errors import DataError, MissingBackendError

SPEC = DataSpec("digits", image_size=32, calibration_images=40, validation_images=600)


def test_no_validation_digit_is_seen_in_training() -> None:
    training = {stroke.tobytes() for stroke in bundled("train")[0]}
    calibration = {stroke.tobytes() for stroke in bundled("calibration")[0]}
    validation = {stroke.tobytes() for stroke in bundled("validation")[0]}
    assert len(training) + len(validation) == 1797
    assert training.isdisjoint(validation)
    assert calibration == training


def test_the_digits_of_a_split_do_not_depend_on_the_seed() -> None:
    one, other = (load(SPEC, "validation", seed, Path()) for seed in (0, 7))
    assert {one[i].image.tobytes() for i in range(540)} == {other[i].image.tobytes() for i in range(540)}
    assert one[0].image.tobytes() != other[0].image.tobytes()


def test_images_are_three_planes_in_range_and_their_number_is_capped() -> None:
    dataset = load(SPEC, "validation", 0, Path())
    assert len(dataset) == 540
    sample = dataset[3]
    assert sample.image.shape == (3, 32, 32) and sample.image.dtype == np.float32
    assert sample.image.min() >= 0 and sample.image.max() <= 1
    assert sample.labels.shape == (1,) and sample.boxes is None
    assert len(load(SPEC, "calibration", 0, Path())) == 40


def test_scaling_keeps_the_digit_in_place() -> None:
    stroke = bundled("train")[0][0]
    blocks = scaled(stroke, 64).reshape(8, 8, 8, 8).mean(axis=(1, 3))
    assert np.corrcoef(blocks.ravel(), stroke.ravel())[0, 1] > 0.97


def test_batches_hold_every_sample_once_and_in_order() -> None:
    dataset = load(SPEC, "calibration", 0, Path())
    seen = list(batches(dataset, 16))
    assert [len(images) for images, _ in seen] == [16, 16, 8]
    joined = np.concatenate([images for images, _ in seen])
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, [dataset[i].image for i in range(40)])


def test_an_unknown_data_set_is_answered_with_the_closest_name() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load(DataSpec("digit", image_size=32), "train", 0, Path())


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "elsewhere", "package_that_is_not_there:load")
    with pytest.raises(MissingBackendError, match=r"package_that_is_not_there.*trtq\[ort\]"):
        load(DataSpec("elsewhere", image_size=32), "train", 0, Path())
