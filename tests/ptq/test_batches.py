from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.backends import calibrator
from trtq.errors import DataError, OutputError
from trtq.ptq import write_batches


def stacks(*sizes: int) -> Iterator[np.ndarray]:
    start = 0
    for size in sizes:
        yield np.arange(start, start + size, dtype=np.float32).reshape(size, 1, 1, 1) * np.ones(
            (1, 3, 2, 2), np.float32
        )
        start += size


def written(folder: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in calibrator.batch_files(folder)])[:, 0, 0, 0]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), batch=st.integers(1, 7))
def test_every_image_is_there_in_order_and_the_last_batch_is_filled_from_the_first(
    sizes: list[int], batch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("x") / "batches"
    count = write_batches(stacks(*sizes), folder, batch)
    images = sum(sizes)
    assert count == -(-images // batch) == len(calibrator.batch_files(folder))
    found = written(folder)
    filling = np.arange(count * batch - images) % min(batch, images)
    assert np.array_equal(found, [*range(images), *filling])
    calibrator.check_batches(calibrator.batch_files(folder), (batch, 3, 2, 2))


def test_a_folder_is_replaced_whole_and_keeps_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "batches"
    write_batches(stacks(4), folder, 2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def failing() -> Iterator[np.ndarray]:
        yield from stacks(4)
        yield np.full((1, 3, 2, 2), np.nan, np.float32)

    with pytest.raises(DataError, match="NaN"):
        write_batches(failing(), folder, 2)
    with pytest.raises(DataError, match="no calibration images"):
        write_batches([], folder, 2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_batches(stacks(2, 2), folder, 2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert write_batches(stacks(2), folder, 2) == 1 == len(list(folder.iterdir()))
    assert [path.name for path in tmp_path.iterdir()] == ["batches"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for place in ("notes", "notes/a.txt"):
        with pytest.raises(OutputError, match="something else"):
            write_batches(stacks(2), tmp_path / place, 2)
    with pytest.raises(OutputError, match="cannot be written"):
        write_batches(stacks(2), tmp_path / "notes" / "a.txt" / "batches", 2)
    with pytest.raises(DataError, match=r"is \[3, 2, 3\], and those before \[3, 2, 2\]"):
        write_batches([np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 3, 2, 3), np.float32)], tmp_path / "b", 2)
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
