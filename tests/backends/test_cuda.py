"""CUDA through cuda-python and pycuda: what is missing is said in a sentence, and pycuda is called as it wants."""

import atexit
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trtq.backends import cuda
from trtq.errors import ConfigError, MissingBackendError, ModelError

# cuda-python as the code under test has it, which finds it in either of two places; None where it is not installed.
CUDART: Any = vars(cuda)["cudart"]


@pytest.fixture(autouse=True)
def fresh() -> Any:
    cuda.open_cuda.cache_clear()
    yield
    cuda.open_cuda.cache_clear()


def test_neither_package_is_a_sentence_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cudart", None)
    monkeypatch.setattr(cuda, "pycuda", None)
    with pytest.raises(MissingBackendError, match="neither is installed; run `pip install cuda-python`"):
        cuda.open_cuda()


def without_driver() -> None:
    if CUDART is None:
        pytest.skip("cuda-python is not installed")
    if CUDART.cudaDriverGetVersion()[1]:
        pytest.skip("there is a driver here; this is what happens without one")


def test_no_driver_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    without_driver()
    assert CUDART is not None
    with pytest.raises(MissingBackendError) as caught:
        cuda.open_cuda()
    assert str(caught.value) == (
        "no NVIDIA GPU can be used here (CUDA driver version is insufficient for CUDA runtime version); "
        "an engine runs on a machine with a GPU and its driver"
    )
    # The driver is there, but older than what cuda-python wants.
    monkeypatch.setattr(CUDART, "cudaDriverGetVersion", lambda: (0, 12060))
    with pytest.raises(
        MissingBackendError, match=r"the driver takes CUDA 12\.6; install the cuda-python of that major"
    ):
        cuda.open_cuda()


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.device(),
        lambda one: one.allocate(8),
        lambda one: one.allocate_pinned(8),
        lambda one: one.create_stream(),
        lambda one: one.create_event(spin=True),
        lambda one: one.synchronize(4096),
        lambda one: one.record(4096, 8192),
        lambda one: one.wait(4096),
        lambda one: one.elapsed_us(4096, 8192),
        lambda one: one.copy_in(4096, np.zeros(8, np.uint8), 8192),
        lambda one: one.copy_out(np.zeros(8, np.uint8), 4096, 8192),
        lambda one: one.capture(4096, lambda: None),
        lambda one: one.launch(4096, 8192),
    ],
)
def test_every_call_reaches_the_installed_cuda_python(call: Any) -> None:
    """With integers for handles, and with its own words for what goes wrong: here that there is no driver."""
    without_driver()
    with pytest.raises(MissingBackendError, match="no NVIDIA GPU can be used here"):
        call(object.__new__(cuda._CudaPython))


def test_freeing_never_raises() -> None:
    without_driver()
    one = object.__new__(cuda._CudaPython)
    for free in (one.free, one.destroy_stream, one.destroy_event, one.destroy_graph):
        free(4096)
    one.free_pinned(np.zeros(8, np.uint8))


class Error(Exception):
    pass


class MemoryError_(Error):  # noqa: N801, N818
    pass


class Memory:
    """Device memory of pycuda: an object that is an address to int(), with its own free()."""

    live: dict[int, "Memory"] = {}  # noqa: RUF012

    def __init__(self, size: int) -> None:
        if size > 1 << 40:
            raise MemoryError_("cuMemAlloc failed: out of memory")
        self.bytes = np.zeros(size, np.uint8)
        Memory.live[int(self)] = self

    def __int__(self) -> int:
        return int(self.bytes.ctypes.data)

    def free(self) -> None:
        del Memory.live[int(self)]


class Pinned(np.ndarray):
    """The owner that pycuda puts behind a page-locked array."""

    freed = 0

    def free(self) -> None:
        Pinned.freed += 1


def pycuda_of_one_gpu(pushed: list[str], *, works: bool = True) -> SimpleNamespace:
    def start() -> None:
        if not works:
            raise Error("cuInit failed: no CUDA-capable device is detected")

    context = SimpleNamespace(push=lambda: pushed.append("push"), pop=lambda: pushed.append("pop"))
    device = SimpleNamespace(
        retain_primary_context=lambda: context,
        compute_capability=lambda: (8, 7),
        total_memory=lambda: 8 << 30,
        name=lambda: "Orin",
    )
    return SimpleNamespace(
        init=start,
        Device=lambda index: device,
        Error=Error,
        MemoryError=MemoryError_,
        Stream=lambda flags: SimpleNamespace(handle=77, synchronize=lambda: None),
        Event=lambda flags: SimpleNamespace(
            flags=flags, record=lambda stream: stream.handle, synchronize=lambda: None, time_since=lambda start: 0.25
        ),
        mem_alloc=Memory,
        pagelocked_empty=lambda size, dtype: np.zeros(size, dtype).view(Pinned)[:].view(np.ndarray),
        memcpy_htod_async=lambda address, array, stream: np.copyto(Memory.live[address].bytes[: array.nbytes], array),
        memcpy_dtoh_async=lambda array, address, stream: np.copyto(array, Memory.live[address].bytes[: array.nbytes]),
        get_driver_version=lambda: 12060,
        get_version=lambda: (12, 6, 0),
    )


def test_pycuda_copies_times_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[str] = []
    monkeypatch.setattr(cuda, "cudart", None)
    monkeypatch.setattr(cuda, "pycuda", pycuda_of_one_gpu(pushed))
    monkeypatch.setattr(atexit, "register", lambda call: pushed.append("at exit"))
    one = cuda.open_cuda()
    assert cuda.open_cuda() is one and pushed == ["push", "at exit"]
    assert one.device() == cuda.Device("Orin", "sm87", 8192, "12.6", "pycuda", "12.6")
    with cuda.device_memory(one, 6) as address, cuda.pinned_memory(one, 6) as array, cuda.stream(one) as stream:
        assert stream == 77
        array[:] = range(6)
        one.copy_in(address, array, stream)
        array[:] = 0
        one.copy_out(array, address, stream)
        assert array.tolist() == [0, 1, 2, 3, 4, 5]
        with cuda.event(one, spin=True) as start, cuda.event(one) as end:
            one.record(start, stream)
            one.wait(end)
            assert one.elapsed_us(start, end) == 250.0
        one.synchronize(stream)
        with pytest.raises(ConfigError, match="pycuda has no CUDA graphs"), cuda.graph(one, stream, lambda: None):
            pass
    assert isinstance(one, cuda._PyCuda)
    assert not Memory.live and Pinned.freed == 1 and not one._held
    with pytest.raises(ModelError, match=r"does not suffice for taking 2097152\.0 MiB of the GPU's memory"):
        one.allocate(1 << 41)


def test_pycuda_without_a_gpu_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cudart", None)
    monkeypatch.setattr(cuda, "pycuda", pycuda_of_one_gpu([], works=False))
    with pytest.raises(MissingBackendError, match=r"no NVIDIA GPU can be used here \(cuInit failed: no CUDA-capable"):
        cuda.open_cuda()
