from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtq.config import DataSpec
from trtq.data import load
from trtq.data.folder import ImageFolder
from trtq.errors import DataError


def spec(path: str | None = "images") -> DataSpec:
    return DataSpec("folder", image_size=24, path=path)


def fill(folder: Path, colour: tuple[int, int, int], count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (40, 30 + number), colour).save(folder / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "images" / "red", (255, 0, 0), 10)
    fill(tmp_path / "images" / "blue", (0, 0, 255), 10)
    return tmp_path


def test_one_sub_folder_is_one_class(root: Path) -> None:
    dataset = load(spec(), "train", 0, root)
    assert dataset.classes == ("blue", "red")
    for sample in (dataset[index] for index in range(len(dataset))):
        assert sample.image.shape == (3, 24, 24) and sample.image.dtype == np.float32
        expected = [0, 0, 1] if sample.labels[0] == 0 else [1, 0, 0]
        np.testing.assert_allclose(sample.image.mean(axis=(1, 2)), expected)


def test_every_fifth_image_of_each_class_is_for_validation(root: Path) -> None:
    training, validation = load(spec(), "train", 3, root), load(spec(), "validation", 3, root)
    assert isinstance(training, ImageFolder) and isinstance(validation, ImageFolder)
    assert set(training.files).isdisjoint(validation.files)
    assert sorted(validation.labels) == [0, 0, 1, 1]
    assert len(training) == 16


def test_folders_named_train_and_val_are_the_splits(root: Path) -> None:
    fill(root / "split" / "train" / "red", (255, 0, 0), 3)
    fill(root / "split" / "train" / "blue", (0, 0, 255), 3)
    fill(root / "split" / "val" / "red", (255, 0, 0), 2)
    validation = load(spec("split"), "validation", 0, root)
    assert validation.classes == ("blue", "red")
    assert [validation[index].labels[0] for index in range(len(validation))] == [1, 1]
    assert len(load(spec("split"), "calibration", 0, root)) == 6


def test_grey_and_transparent_images_become_three_planes(root: Path) -> None:
    Image.new("LA", (8, 8), (128, 10)).save(root / "images" / "red" / "grey.png")
    dataset = load(spec(), "train", 0, root)
    assert {dataset[index].image.shape for index in range(len(dataset))} == {(3, 24, 24)}


def test_an_unreadable_image_is_named(root: Path) -> None:
    for file in (root / "images" / "red").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    dataset = load(spec(), "train", 0, root)
    with pytest.raises(DataError, match=r"red/\d\.png: cannot be read as an image"):
        for index in range(len(dataset)):
            dataset[index]


def test_missing_path_missing_folder_and_empty_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"needs data\.path"):
        load(spec(None), "train", 0, tmp_path)
    with pytest.raises(DataError, match="nowhere: is not a folder"):
        load(spec("nowhere"), "train", 0, tmp_path)
    with pytest.raises(DataError, match="holds no image for train"):
        load(spec(), "train", 0, tmp_path)
