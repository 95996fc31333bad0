"""Implicit PTQ's calibrator: batches from .npy files, and TensorRT's own cache; for versions up to 10.x.

TensorRT reads the cache first and asks for batches only where the cache is missing or another version's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from trtq.errors import DataError

if TYPE_CHECKING:
    from trtq.backends.cuda import Bytes, Cuda

Algorithm = Literal["entropy", "minmax"]
# Entropy is what convolutional networks and DLA want; MinMax keeps the whole range.
CLASSES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


def batch_files(folder: Path) -> tuple[Path, ...]:
    """Return the batches of a folder in order of name; raises `DataError` where there is none."""
    found = tuple(sorted(folder.glob("*.npy")))
    if not found:
        raise DataError(f"{folder}: holds no .npy files; write one batch of images into each")
    return found


def check_batches(files: Sequence[Path], shape: tuple[int, ...]) -> None:
    """Raise `DataError` where a file is not a float32 batch of `shape`; a dimension of -1 takes any one size."""
    first: tuple[int, ...] | None = None
    for path in files:
        batch = _read(path)
        fits = batch.ndim == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, batch.shape, strict=True)
        )
        if batch.dtype != np.float32 or not fits:
            raise DataError(
                f"{path}: is {batch.dtype.name} {list(batch.shape)}; this network calibrates with float32 {list(shape)}"
            )
        first = first or batch.shape
        if batch.shape != first:
            raise DataError(f"{path}: is {list(batch.shape)}, and the batch before it {list(first)}; give one size")
        if not np.isfinite(batch).all():
            raise DataError(f"{path}: holds infinite values or NaN; calibrate with images")


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return the shape of a network's one input, -1 for a dynamic dimension; raises `DataError` for several inputs."""
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    if len(inputs) != 1:
        raise DataError(f"the network has {len(inputs)} inputs, and .npy batches feed one; give a calibration cache")
    return tuple(dim.dim_value or -1 for dim in inputs[0].type.tensor_type.shape.dim)


def make(
    vendor: Any,
    *,
    algorithm: Algorithm,
    cache: str | None,
    batches: Sequence[str],
    written: str,
    open_cuda: Callable[[], Cuda],
) -> Any:
    """Return a calibrator of the vendor's that feeds `batches` and keeps the cache that TensorRT makes in `written`.

    cache: one of an earlier calibration; with it the GPU gets no batch. Batches were checked by `check_batches`.
    open_cuda: `cuda.open_cuda`, which a parent that only checks batches does without.
    """
    base: Any = getattr(vendor, CLASSES[algorithm])
    feed = _Feed([Path(one) for one in batches], open_cuda)

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return feed.size

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            return feed.next()

        def read_calibration_cache(self) -> bytes | None:
            return Path(cache).read_bytes() if cache is not None else None

        def write_calibration_cache(self, content: Any) -> None:
            Path(written).write_bytes(bytes(content))

    return Calibrator()


class _Feed:
    """Batches on their way to the device, one buffer for all."""

    def __init__(self, files: Sequence[Path], open_cuda: Callable[[], Cuda]) -> None:
        self._files = iter(files)
        self._open_cuda = open_cuda
        self._device: tuple[Cuda, int, int, Bytes] | None = None
        self.size = int(_read(files[0]).shape[0]) if files else 1

    def next(self) -> list[int] | None:
        """Return the device address of the next batch, None at the end."""
        path = next(self._files, None)
        if path is None:
            return None
        batch = np.ascontiguousarray(_read(path))
        device, address, stream, pinned = self._device or self._open(batch.nbytes)
        pinned[:] = batch.view(np.uint8).reshape(-1)
        device.copy_in(address, pinned, stream)
        device.synchronize(stream)
        return [address]

    def _open(self, size_bytes: int) -> tuple[Cuda, int, int, Bytes]:
        # The worker's end frees all: TensorRT may read the buffer until the engine is built.
        device = self._open_cuda()
        self._device = device, device.allocate(size_bytes), device.create_stream(), device.allocate_pinned(size_bytes)
        return self._device


def _read(path: Path) -> npt.NDArray[Any]:
    try:
        batch: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a .npy file ({error})") from error
    return batch
