from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_recipe
from trtq import data
from trtq.config import load_recipe
from trtq.data.images import load_images
from trtq.errors import ConfigError, DataError

SHAPE = (1, 3, 8, 10)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (40, 30), (255, 0, 51)).save(folder / "b.png")
    Image.new("L", (5, 5), 102).save(folder / "a.JPG", quality=100)
    Image.new("RGBA", (9, 9), (0, 255, 0, 10)).save(folder / "more" / "c.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def saved(folder: Path, array: np.ndarray, name: str = "images.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def test_pictures_become_rgb_in_0_to_1_at_the_networks_size(pictures: Path) -> None:
    batches = list(load_images(pictures, SHAPE))
    assert [one.shape for one in batches] == [SHAPE] * 3
    assert all(one.dtype == np.float32 for one in batches)
    colours = [one.mean(axis=(0, 2, 3)) for one in batches]
    np.testing.assert_allclose(colours, [[0.4, 0.4, 0.4], [1.0, 0.0, 0.2], [0.0, 1.0, 0.0]], atol=0.01)


def test_rows_stay_rows(tmp_path: Path) -> None:
    """Height before width: a picture black above and white below."""
    picture = np.zeros((20, 30), np.uint8)
    picture[10:] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    (one,) = load_images(tmp_path, SHAPE)
    assert one[0, :, :3].max() < 0.1 and one[0, :, 5:].min() > 0.9


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (4, [3]), (-1, [1, 1, 1])])
def test_images_come_in_the_networks_batch(pictures: Path, tmp_path: Path, batch: int, sizes: list[int]) -> None:
    array = saved(tmp_path, np.random.default_rng(0).random((3, 3, 8, 10)))
    for source in (pictures, array):
        assert [len(one) for one in load_images(source, (batch, *SHAPE[1:]))] == sizes


@pytest.mark.parametrize("name", ["images.npy", "images.npz"])
def test_arrays_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 8, 10))
    path = tmp_path / name
    if name.endswith("z"):
        np.savez(path, values)
    else:
        np.save(path, values)
    found = np.concatenate(list(load_images(path, (-1, 3, -1, -1))))
    assert np.array_equal(found, values.astype(np.float32))


def test_batches_have_a_length_a_limit_and_are_read_again(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.arange(7 * 12, dtype=np.float32).reshape(7, 3, 2, 2))
    batches = load_images(tmp_path / "images.npy", (2, 3, 2, 2), limit=5)
    assert (len(batches), batches.images) == (3, 5)
    first, second = list(batches), list(batches)
    assert [len(one) for one in first] == [2, 2, 1]
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert load_images(tmp_path / "images.npy", (-1, 3, 2, 2), limit=100).images == 7


def test_a_recipe_gives_its_calibration_images(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    recipe = load_recipe(path)
    found = np.concatenate(list(load_images(path, (-1, 3, 64, 64))))
    dataset = data.load(recipe.data, "calibration", recipe.seed, tmp_path)
    assert len(found) == recipe.data.calibration_images == len(dataset)
    assert np.array_equal(found, np.stack([dataset[index].image for index in range(len(dataset))]))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    """A pickled object would run code of its choice when loaded."""
    marker = tmp_path / "ran"
    array = np.empty(1, object)
    array[0] = _Writes(marker)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=f"{name}: is not a plain array"):
            load_images(tmp_path / name, SHAPE)
    assert not marker.exists()


class _Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _nothing(folder: Path) -> Path:
    return folder / "absent"


def _empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _text(folder: Path) -> Path:
    (folder / "a.npy").write_text("text")
    return folder / "a.npy"


def _short(folder: Path) -> Path:
    path = saved(folder, np.zeros((4, 3, 8, 10)))
    path.write_bytes(path.read_bytes()[:200])
    return path


def _empty_file(folder: Path) -> Path:
    (folder / "a.npy").touch()
    return folder / "a.npy"


def _broken_zip(folder: Path) -> Path:
    (folder / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    return folder / "a.npz"


def _two_arrays(folder: Path) -> Path:
    np.savez(folder / "a.npz", one=np.zeros(3), other=np.zeros(3))
    return folder / "a.npz"


def _other_suffix(folder: Path) -> Path:
    (folder / "a.csv").touch()
    return folder / "a.csv"


def _other_size(folder: Path) -> Path:
    return write_recipe(folder)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_nothing, "no such folder or file"),
        (_empty_folder, "holds no pictures"),
        (_text, "is not a plain array"),
        (_short, "is not a plain array"),
        (_empty_file, "is not a plain array"),
        (_broken_zip, "is not a plain array"),
        (_two_arrays, "holds 2 arrays"),
        (_other_suffix, "is neither a folder"),
        (_other_size, "its images are 3 x 64 x 64, but the network takes 3 x 8 x 10"),
        (lambda folder: saved(folder, np.zeros((2, 3, 8, 10), np.uint8)), "holds uint8"),
        (lambda folder: saved(folder, np.zeros((3, 8, 10))), "has the shape 3 x 8 x 10, but the network takes 1 x 3"),
        (lambda folder: saved(folder, np.zeros((2, 3, 8, 8))), "has the shape 2 x 3 x 8 x 8"),
        (lambda folder: saved(folder, np.zeros((0, 3, 8, 10))), "holds no image"),
    ],
)
def test_each_thing_that_is_wrong_is_one_sentence_at_once(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    with pytest.raises(DataError, match=words) as raised:
        load_images(make(tmp_path), SHAPE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 1, 8, 10), "1 x 1 x 8 x 10; give an array"),
        ((1, 3, -1, -1), "1 x 3 x any x any; give an array"),
        ((1, 10), "give an array"),
        ((), "no dimensions"),
    ],
)
def test_pictures_need_a_network_that_takes_pictures(pictures: Path, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_images(pictures, shape)


def test_what_shows_when_an_image_is_read_is_named_then(pictures: Path, tmp_path: Path) -> None:
    (pictures / "more" / "d.png").write_text("no picture")
    with pytest.raises(DataError, match=r"d\.png: cannot be read as an image"):
        list(load_images(pictures, SHAPE))
    array = np.zeros((2, 3, 8, 10))
    array[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        list(load_images(saved(tmp_path, array), SHAPE))


def test_a_wrong_recipe_is_said_as_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[model")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_images(tmp_path / "a.toml", SHAPE)


def test_arrays_need_no_pillow_and_pictures_say_what_to_install(pictures: Path, tmp_path: Path) -> None:
    array = saved(tmp_path, np.zeros((1, 3, 8, 10)))
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from pathlib import Path\n"
        "from trtq.data.images import load_images\n"
        f"assert len(list(load_images(Path({str(array)!r}), {SHAPE}))) == 1\n"
        f"load_images(Path({str(pictures)!r}), {SHAPE})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingBackendError: pictures are read with Pillow" in done.stderr
