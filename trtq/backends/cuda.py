"""CUDA in the few calls that running an engine takes, through cuda-python or pycuda, whichever is installed."""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trtq.errors import ConfigError, MissingBackendError, ModelError

# cuda.cudart: cuda-python before 12.6. Its modules may be there and their libraries not, with errors of any kind.
try:
    from cuda.bindings import runtime as cudart
except Exception:
    try:
        from cuda import cudart
    except Exception:
        cudart = None
try:
    import pycuda.driver as pycuda
except Exception:
    pycuda = None

Bytes = npt.NDArray[np.uint8]
# What CUDA answers where no GPU can be used at all.
NO_GPU = frozenset(
    {
        "cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInitializationError", "cudaErrorStubLibrary",
        "cudaErrorSystemDriverMismatch", "cudaErrorSystemNotReady", "cudaErrorDevicesUnavailable",
        "cudaErrorCompatNotSupportedOnDevice",
    }
)  # fmt: skip
OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
NOTHING_INSTALLED = (
    "an engine runs through cuda-python or pycuda, and neither is installed; run `pip install cuda-python` in the "
    "major version of CUDA that the driver takes"
)
PRIVATE_STREAM = 1  # cudaStreamNonBlocking: work on the default stream does not hold it up
BLOCKING_EVENT = 1  # cudaEventBlockingSync: waiting gives the processor away instead of spinning
SPINNING_EVENT = 0
DEVICE = 0


@dataclass(frozen=True)
class Device:
    """A GPU: its compute capability as "sm90", and the CUDA versions of its driver and of the package that asks."""

    name: str
    sm: str
    memory_mib: int
    driver_cuda: str
    package: str
    package_cuda: str


class Cuda(Protocol):
    """One device's memory, streams, events and graphs; addresses and handles are integers.

    Freeing never raises: after an error CUDA may have taken everything back already. Everything else raises
    `MissingBackendError` where no GPU can be used, and `ModelError` with CUDA's own words.
    """

    has_graphs: bool

    def device(self) -> Device:
        """Describe the GPU."""

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory on the device."""

    def free(self, address: int) -> None:
        """Free memory of the device."""

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        """Return new page-locked memory of the host, which copies need to run beside other work."""

    def free_pinned(self, array: Bytes) -> None:
        """Free page-locked memory; the array must not be used any more."""

    def create_stream(self) -> int:
        """Return the handle of a new stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream; raises what any of it ran into."""

    def create_event(self, *, spin: bool) -> int:
        """Return the handle of a new event; `spin`: waiting for it keeps a processor busy, and answers sooner."""

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""

    def record(self, event: int, stream: int) -> None:
        """Put the event behind the stream's present work."""

    def wait(self, event: int) -> None:
        """Wait until the event is reached."""

    def elapsed_us(self, start: int, end: int) -> float:
        """Return the device's microseconds between two reached events."""

    def copy_in(self, address: int, array: Bytes, stream: int) -> None:
        """Copy a whole pinned array to the device, as work of the stream."""

    def copy_out(self, array: Bytes, address: int, stream: int) -> None:
        """Fill a whole pinned array from the device, as work of the stream."""

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Return the handle of a graph of all that `work` puts into the stream, which is not run."""

    def launch(self, graph: int, stream: int) -> None:
        """Run a graph as work of the stream."""

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""


@cache
def open_cuda() -> Cuda:
    """Return CUDA on the first GPU; raises `MissingBackendError` where there is no package, no driver or no GPU."""
    if cudart is not None:
        return _CudaPython()
    if pycuda is not None:
        return _PyCuda()
    raise MissingBackendError(NOTHING_INSTALLED)


@contextmanager
def device_memory(cuda: Cuda, size_bytes: int) -> Iterator[int]:
    """Hold memory of the device and yield its address."""
    address = cuda.allocate(max(1, size_bytes))
    try:
        yield address
    finally:
        cuda.free(address)


@contextmanager
def pinned_memory(cuda: Cuda, size_bytes: int) -> Iterator[Bytes]:
    """Hold page-locked memory of the host."""
    array = cuda.allocate_pinned(max(1, size_bytes))
    try:
        yield array[:size_bytes]
    finally:
        cuda.free_pinned(array)


@contextmanager
def stream(cuda: Cuda) -> Iterator[int]:
    """Hold a stream and yield its handle."""
    handle = cuda.create_stream()
    try:
        yield handle
    finally:
        cuda.destroy_stream(handle)


@contextmanager
def event(cuda: Cuda, *, spin: bool = False) -> Iterator[int]:
    """Hold an event and yield its handle."""
    handle = cuda.create_event(spin=spin)
    try:
        yield handle
    finally:
        cuda.destroy_event(handle)


@contextmanager
def graph(cuda: Cuda, stream: int, work: Callable[[], None]) -> Iterator[int]:
    """Hold the graph of what `work` puts into a stream and yield its handle."""
    handle = cuda.capture(stream, work)
    try:
        yield handle
    finally:
        cuda.destroy_graph(handle)


class _CudaPython:
    """CUDA through NVIDIA's cuda-python; uses the device's primary context, as TensorRT does."""

    has_graphs = True

    def __init__(self) -> None:
        self._check(cudart.cudaSetDevice(DEVICE), "taking the first GPU")

    def device(self) -> Device:
        facts = self._check(cudart.cudaGetDeviceProperties(DEVICE), "asking the GPU what it is")
        return Device(
            name=facts.name.split(b"\0")[0].decode(),
            sm=f"sm{facts.major}{facts.minor}",
            memory_mib=facts.totalGlobalMem // 2**20,
            driver_cuda=_version(cudart.cudaDriverGetVersion()[1]),
            package="cuda-python",
            package_cuda=_version(cudart.cudaRuntimeGetVersion()[1]),
        )

    def allocate(self, size_bytes: int) -> int:
        return int(self._check(cudart.cudaMalloc(size_bytes), f"taking {_size(size_bytes)} of the GPU's memory"))

    def free(self, address: int) -> None:
        cudart.cudaFree(address)

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        address = self._check(cudart.cudaMallocHost(size_bytes), f"locking {_size(size_bytes)} of the host's memory")
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(int(address)))

    def free_pinned(self, array: Bytes) -> None:
        cudart.cudaFreeHost(array.ctypes.data)

    def create_stream(self) -> int:
        return int(self._check(cudart.cudaStreamCreateWithFlags(PRIVATE_STREAM), "creating a stream"))

    def destroy_stream(self, stream: int) -> None:
        cudart.cudaStreamDestroy(stream)

    def synchronize(self, stream: int) -> None:
        self._check(cudart.cudaStreamSynchronize(stream), "running the engine")

    def create_event(self, *, spin: bool) -> int:
        flags = SPINNING_EVENT if spin else BLOCKING_EVENT
        return int(self._check(cudart.cudaEventCreateWithFlags(flags), "creating an event"))

    def destroy_event(self, event: int) -> None:
        cudart.cudaEventDestroy(event)

    def record(self, event: int, stream: int) -> None:
        self._check(cudart.cudaEventRecord(event, stream), "recording an event")

    def wait(self, event: int) -> None:
        self._check(cudart.cudaEventSynchronize(event), "running the engine")

    def elapsed_us(self, start: int, end: int) -> float:
        return 1000 * float(self._check(cudart.cudaEventElapsedTime(start, end), "reading a time"))

    def copy_in(self, address: int, array: Bytes, stream: int) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        result = cudart.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, stream)
        self._check(result, "copying to the GPU")

    def copy_out(self, array: Bytes, address: int, stream: int) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        result = cudart.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, stream)
        self._check(result, "copying from the GPU")

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(cudart.cudaStreamBeginCapture(stream, mode), "capturing a CUDA graph")
        try:
            work()
        except BaseException:
            cudart.cudaStreamEndCapture(stream)
            raise
        captured = self._check(cudart.cudaStreamEndCapture(stream), "capturing a CUDA graph")
        try:
            return int(self._check(cudart.cudaGraphInstantiateWithFlags(captured, 0), "preparing a CUDA graph"))
        finally:
            cudart.cudaGraphDestroy(captured)

    def launch(self, graph: int, stream: int) -> None:
        self._check(cudart.cudaGraphLaunch(graph, stream), "launching a CUDA graph")

    def destroy_graph(self, graph: int) -> None:
        cudart.cudaGraphExecDestroy(graph)

    def _check(self, result: tuple[Any, ...], doing: str) -> Any:
        error, *values = result
        if error == cudart.cudaError_t.cudaSuccess:
            return values[0] if values else None
        words = cudart.cudaGetErrorString(error)[1].decode()
        if error.name in NO_GPU:
            raise MissingBackendError(_no_gpu(words, cudart.cudaDriverGetVersion()[1]))
        if error.name == OUT_OF_MEMORY:
            raise ModelError(f"the memory does not suffice for {doing}; end other programs or use a smaller batch")
        raise ModelError(f"CUDA failed while {doing}: {words} ({error.name})")


class _PyCuda:
    """CUDA through pycuda, in the device's primary context, as TensorRT has it; pycuda knows no CUDA graphs."""

    has_graphs = False

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}
        try:
            pycuda.init()
            self._device = pycuda.Device(DEVICE)
            context = self._device.retain_primary_context()
            context.push()
        except pycuda.Error as error:
            raise MissingBackendError(_no_gpu(str(error), 0)) from error
        atexit.register(context.pop)  # pycuda aborts the process where one is left

    def device(self) -> Device:
        major, minor = self._device.compute_capability()
        return Device(
            name=self._device.name(),
            sm=f"sm{major}{minor}",
            memory_mib=self._device.total_memory() // 2**20,
            driver_cuda=_version(pycuda.get_driver_version()),
            package="pycuda",
            package_cuda=".".join(map(str, pycuda.get_version()[:2])),
        )

    def allocate(self, size_bytes: int) -> int:
        memory = self._called(lambda: pycuda.mem_alloc(size_bytes), f"taking {_size(size_bytes)} of the GPU's memory")
        return self._hold(int(memory), memory)

    def free(self, address: int) -> None:
        with suppress(pycuda.Error):
            self._held.pop(address).free()

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        doing = f"locking {_size(size_bytes)} of the host's memory"
        array: Bytes = self._called(lambda: pycuda.pagelocked_empty(size_bytes, np.uint8), doing)
        return array

    def free_pinned(self, array: Bytes) -> None:
        allocation: Any = array.base
        with suppress(pycuda.Error):
            allocation.free()

    def create_stream(self) -> int:
        stream = self._called(lambda: pycuda.Stream(PRIVATE_STREAM), "creating a stream")
        return self._hold(int(stream.handle), stream)

    def destroy_stream(self, stream: int) -> None:
        del self._held[stream]

    def synchronize(self, stream: int) -> None:
        self._called(self._held[stream].synchronize, "running the engine")

    def create_event(self, *, spin: bool) -> int:
        # The identity stands for the handle, which pycuda does not tell.
        event = self._called(lambda: pycuda.Event(SPINNING_EVENT if spin else BLOCKING_EVENT), "creating an event")
        return self._hold(id(event), event)

    def destroy_event(self, event: int) -> None:
        del self._held[event]

    def record(self, event: int, stream: int) -> None:
        self._called(lambda: self._held[event].record(self._held[stream]), "recording an event")

    def wait(self, event: int) -> None:
        self._called(self._held[event].synchronize, "running the engine")

    def elapsed_us(self, start: int, end: int) -> float:
        return 1000 * float(self._called(lambda: self._held[end].time_since(self._held[start]), "reading a time"))

    def copy_in(self, address: int, array: Bytes, stream: int) -> None:
        self._called(lambda: pycuda.memcpy_htod_async(address, array, self._held[stream]), "copying to the GPU")

    def copy_out(self, array: Bytes, address: int, stream: int) -> None:
        self._called(lambda: pycuda.memcpy_dtoh_async(array, address, self._held[stream]), "copying from the GPU")

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        raise ConfigError("pycuda has no CUDA graphs; run `pip install cuda-python`, or measure without a graph")

    def launch(self, graph: int, stream: int) -> None:
        self.capture(stream, lambda: None)

    def destroy_graph(self, graph: int) -> None:
        pass

    def _hold(self, handle: int, owner: Any) -> int:
        self._held[handle] = owner
        return handle

    def _called(self, call: Callable[[], Any], doing: str) -> Any:
        try:
            return call()
        except pycuda.MemoryError as error:
            raise ModelError(
                f"the memory does not suffice for {doing}; end other programs or use a smaller batch"
            ) from error
        except pycuda.Error as error:
            raise ModelError(f"CUDA failed while {doing}: {error}") from error


def _no_gpu(words: str, driver: int) -> str:
    if driver == 0:
        return f"no NVIDIA GPU can be used here ({words}); an engine runs on a machine with a GPU and its driver"
    return (
        f"no GPU can be used ({words}): the driver takes CUDA {_version(driver)}; install the cuda-python of that "
        "major version, or a newer driver"
    )


def _version(number: int) -> str:
    """Return CUDA's number of a version, 12060, as people write it: 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB" if size_bytes >= 2**20 else f"{size_bytes} bytes"
