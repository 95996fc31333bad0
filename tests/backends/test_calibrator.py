"""Implicit PTQ's calibrator: batches to the device, caches in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.backends.strict_vendor import Cuda
from tests.conftest import present
from trtq.backends import calibrator
from trtq.errors import DataError


class Vendor:
    """The base classes of TensorRT's calibrators; what they do is called by TensorRT alone."""

    class IInt8EntropyCalibrator2:
        get_batch_size: Callable[[], int]
        get_batch: Callable[[list[str]], list[int] | None]
        read_calibration_cache: Callable[[], bytes | None]
        write_calibration_cache: Callable[[memoryview], None]

    class IInt8MinMaxCalibrator:
        get_batch: Callable[[list[str]], list[int] | None]
        read_calibration_cache: Callable[[], bytes | None]


def save(folder: Path, *batches: np.ndarray) -> list[str]:
    paths = [folder / f"{index}.npy" for index in range(len(batches))]
    for path, batch in zip(paths, batches, strict=True):
        np.save(path, batch)
    return list(map(str, paths))


def test_batches_reach_the_device_one_after_the_other(tmp_path: Path) -> None:
    batches = [np.random.default_rng(seed).random((2, 3, 4, 4), np.float32) for seed in range(3)]
    cuda = Cuda()
    made = calibrator.make(
        Vendor,
        algorithm="entropy",
        cache=None,
        batches=save(tmp_path, *batches),
        written=str(tmp_path / "out"),
        open_cuda=lambda: cuda,
    )
    assert isinstance(made, Vendor.IInt8EntropyCalibrator2)
    assert made.get_batch_size() == 2
    assert made.read_calibration_cache() is None
    for batch in batches:
        (address,) = present(made.get_batch(["x"]))
        assert np.array_equal(cuda.memory[address].view(np.float32).reshape(batch.shape), batch)
    assert made.get_batch(["x"]) is None
    made.write_calibration_cache(memoryview(b"TRT-8601-EntropyCalibration2\n"))
    assert (tmp_path / "out").read_bytes() == b"TRT-8601-EntropyCalibration2\n"


def test_a_cache_needs_no_gpu(tmp_path: Path) -> None:
    cache = tmp_path / "ranges.cache"
    cache.write_bytes(b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    made = calibrator.make(
        Vendor,
        algorithm="minmax",
        cache=str(cache),
        batches=[],
        written=str(tmp_path / "out"),
        open_cuda=lambda: pytest.fail("opened a device"),
    )
    assert isinstance(made, Vendor.IInt8MinMaxCalibrator)
    assert made.read_calibration_cache() == cache.read_bytes()
    assert made.get_batch(["x"]) is None


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((1, 3), np.float64), r"1\.npy: is float64 \[1, 3\]"),
        (np.zeros((2, 3), np.float32), r"1\.npy: is \[2, 3\], and the batch before it \[1, 3\]"),
        (np.zeros((1, 4), np.float32), r"calibrates with float32 \[-1, 3\]"),
        (np.full((1, 3), np.nan, np.float32), "infinite values or NaN"),
    ],
)
def test_batches_that_do_not_fit(tmp_path: Path, second: np.ndarray, message: str) -> None:
    paths = [Path(one) for one in save(tmp_path, np.zeros((1, 3), np.float32), second)]
    with pytest.raises(DataError, match=message):
        calibrator.check_batches(paths, (-1, 3))


def test_what_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "0.npy").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"0\.npy: is not a \.npy file"):
        calibrator.check_batches(calibrator.batch_files(tmp_path), (1,))
