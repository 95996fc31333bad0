"""A vendor's module of one version for the runtime: no name that the real wheel's API table lacks can be touched.

The network doubles its input and runs on a CUDA that keeps its memory in NumPy arrays and counts what is not freed.
"""

from __future__ import annotations

import enum
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from trtq.backends.cuda import Bytes, Device
from trtq.backends.loading import log_of
from trtq.errors import ModelError

API = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "api"
VERSIONS = {
    "8.6.1": "tensorrt-8.6.1.json",
    "10.3.0": "tensorrt-10.3.0.json",
    "10.16.1.11": "tensorrt-10.16.1.11.json",
    "11.4.0.106": "tensorrt-11.4.0.106.json",
    "1.7.1.116": "tensorrt-rtx-1.7.1.116.json",
}
RTX = "1.7.1.116"
LARGEST_BATCH = 8
PROFILE_TAKEN = "Profile 0 has been chosen by another IExecutionContext"
LAYERS = ("Conv_0 + Relu_1", "Conv_2")


class Module:
    """`tensorrt` or `tensorrt_rtx` of one version: names of the table alone."""

    def __init__(self, version: str, **behaviour: Any) -> None:
        table = json.loads((API / VERSIONS[version]).read_text(encoding="utf-8"))["names"]
        self.__name__ = "tensorrt_rtx" if version == RTX else "tensorrt"
        self.__version__ = version
        self._table = table
        self._network = Network(**behaviour)
        self.touched: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name not in self._table:
            raise AttributeError(f"{self.__name__} {self.__version__} has no {name}")
        self.touched.add(name)
        if name in ("ILogger", "IProfiler"):
            return type(name, (), {})
        if name == "Runtime":
            return lambda log: self.strict("Runtime", Runtime(self, log))
        if name == "init_libnvinfer_plugins":
            return lambda log, namespace: True
        return enum.Enum(name, self._table[name]["enum"])

    def strict(self, name: str, inside: Any) -> Any:
        return Strict(self, name, inside)


class Strict:
    """An object that shows only the members that the table gives its class."""

    def __init__(self, module: Module, name: str, inside: Any) -> None:
        vars(self).update(_module=module, _name=name, _inside=inside)

    def __getattr__(self, member: str) -> Any:
        self._allow(member)
        return getattr(self._inside, member)

    def __setattr__(self, member: str, value: Any) -> None:
        self._allow(member)
        setattr(self._inside, member, value)

    def _allow(self, member: str) -> None:
        if member not in self._module._table[self._name]["members"]:
            raise AttributeError(f"{self._name} of {self._module.__version__} has no {member}")
        self._module.touched.add(f"{self._name}.{member}")


@dataclass
class Network:
    """What the engine is like, and how it is to fail."""

    dtype: str = "FLOAT"
    location: str = "DEVICE"
    vectorized: int = -1
    output: tuple[int, ...] | None = None
    refuses: str = ""
    runs: bool = True
    capturable: bool = True
    shape: tuple[int, ...] = (-1, 3)
    names: tuple[str, ...] = LAYERS
    kept: bytes = b"kernels"
    contexts: list[Any] = field(default_factory=list)
    alive: list[weakref.ref[Any]] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)


class Runtime:
    def __init__(self, module: Module, log: Any) -> None:
        self.module, self.log = module, log

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        network = self.module._network
        if network.refuses:
            self.log.log(SimpleNamespace(name="INFO"), "Loaded engine size: 1 MiB")
            self.log.log(SimpleNamespace(name="ERROR"), network.refuses)
            return None
        return self.module.strict("ICudaEngine", Engine(self.module, network))

    def get_engine_validity(self, data: bytes) -> tuple[Any, int]:
        return self.module.EngineValidity.INVALID, self.module.EngineInvalidityDiagnostics.UNSUPPORTED_CC.value


@dataclass
class Engine:
    module: Module
    network: Network
    num_io_tensors: int = 2

    def get_tensor_name(self, index: int) -> str:
        return ("image", "doubled")[index]

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self.module.TensorIOMode, "INPUT" if name == "image" else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.module.DataType, self.network.dtype)

    def get_tensor_location(self, name: str) -> Any:
        return getattr(self.module.TensorLocation, self.network.location)

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return self.network.vectorized

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.network.shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(1, 3), (4, 3), (LARGEST_BATCH, 3)]

    def create_execution_context(self, config: Any = None) -> Any:
        # Up to TensorRT 9 the profile belongs to the first context that is still there.
        free = not self.module.__version__.startswith("8.") or not any(one() for one in self.network.alive)
        self.network.contexts.append(Context(self, config, self.network.shape, has_profile=free))
        context = self.module.strict("IExecutionContext", self.network.contexts[-1])
        self.network.alive.append(weakref.ref(context))
        return context

    def create_runtime_config(self) -> Any:
        self.network.configs.append(Config(self))
        return self.module.strict("IRuntimeConfig", self.network.configs[-1])

    def create_engine_inspector(self) -> Any:
        return self.module.strict("EngineInspector", Inspector(self))


@dataclass
class Context:
    engine: Engine
    config: Any
    shape: tuple[int, ...]
    has_profile: bool
    addresses: dict[str, int] = field(default_factory=dict)
    enqueue_emits_profile: bool = True
    profiler: Any = None
    enqueued: int = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if not self.has_profile:
            log_of(self.engine.module).log(SimpleNamespace(name="ERROR"), PROFILE_TAKEN)
            return False
        fits = 1 <= shape[0] <= LARGEST_BATCH and -1 in self.engine.network.shape
        self.shape = tuple(shape) if fits else self.shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.engine.network.output or self.shape if name == "doubled" else self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.network.capturable

    def execute_async_v3(self, stream: int) -> bool:
        self.enqueued += 1
        if Cuda.now.captured is not None and not self.engine.network.capturable:
            return False
        if self.engine.network.runs:
            size = int(np.prod(self.shape)) * 4
            Cuda.now.put(lambda: Cuda.now.double(self.addresses["image"], self.addresses["doubled"], size))
        return self.engine.network.runs

    def report_to_profiler(self) -> bool:
        assert not self.enqueue_emits_profile
        assert not Cuda.now.queue, "the run is not over"
        compiling = 100 if self.enqueued == 1 else 1
        for index, name in enumerate(self.engine.network.names):
            self.profiler.report_layer_time(name, compiling * (0.5 + index))
        return True


@dataclass
class Config:
    engine: Engine
    cuda_graph_strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None
    cache: Any = None

    def create_runtime_cache(self) -> Any:
        return self.engine.module.strict("IRuntimeCache", Cache(self.engine.network))

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


@dataclass
class Cache:
    network: Network

    def serialize(self) -> bytes:
        return self.network.kept

    def deserialize(self, data: bytes) -> bool:
        self.network.kept = data + b"+"
        return True


@dataclass
class Inspector:
    engine: Engine
    execution_context: Any = None

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON" and self.execution_context is not None
        tensor = {"Name": "t", "Dimensions": [1, 3], "Format/Datatype": "Row major linear FP32"}
        rows = [
            {"Name": name, "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor]} for name in LAYERS
        ]
        return json.dumps({"Layers": rows, "Bindings": ["image", "doubled"]})


class Cuda:
    """CUDA on NumPy arrays: a stream's work waits until someone waits for it; every run takes 7 us.

    deepest: the most pieces of work that waited at once.
    """

    has_graphs = True
    now: Cuda

    def __init__(self) -> None:
        Cuda.now = self
        self.memory: dict[int, Any] = {}
        self.queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.clock_us = 0.0
        self.deepest = 0
        self.fails = False

    def device(self) -> Device:
        return Device("Test", "sm87", 1024, "12.6", "test", "12.6")

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.captured is None else self.captured).append(work)
        self.deepest = max(self.deepest, len(self.queue))

    def double(self, source: int, target: int, size: int) -> None:
        self.memory[target][:size] = (self.memory[source][:size].view(np.float32) * 2).view(np.uint8)
        self.clock_us += 7

    def hold(self, thing: Any) -> int:
        handle = 1000 + max(self.memory, default=0)
        self.memory[handle] = thing
        return handle

    def drop(self, handle: int) -> None:
        del self.memory[handle]

    def allocate(self, size_bytes: int) -> int:
        return self.hold(np.zeros(size_bytes, np.uint8))

    def allocate_pinned(self, size_bytes: int) -> Bytes:
        array: Bytes = self.memory[self.hold(np.zeros(size_bytes, np.uint8))]
        return array

    def free_pinned(self, array: Bytes) -> None:
        self.drop(next(handle for handle, one in self.memory.items() if one is array))

    def create_stream(self) -> int:
        return self.hold("stream")

    def create_event(self, *, spin: bool) -> int:
        return self.hold([None])

    def synchronize(self, stream: int) -> None:
        assert self.memory[stream] == "stream"
        if self.fails:
            raise ModelError("CUDA failed while running the engine: an illegal memory access (cudaErrorIllegalAddress)")
        while self.queue:
            self.queue.pop(0)()

    def record(self, event: int, stream: int) -> None:
        times = self.memory[event]
        times[0] = None
        self.put(lambda: times.__setitem__(0, self.clock_us))

    def wait(self, event: int) -> None:
        while self.memory[event][0] is None:
            self.queue.pop(0)()

    def elapsed_us(self, start: int, end: int) -> float:
        return float(self.memory[end][0] - self.memory[start][0])

    def copy_in(self, address: int, array: Bytes, stream: int) -> None:
        def copy() -> None:
            self.memory[address][: array.nbytes] = array
            self.clock_us += 2

        self.put(copy)

    def copy_out(self, array: Bytes, address: int, stream: int) -> None:
        def copy() -> None:
            array[:] = self.memory[address][: array.nbytes]
            self.clock_us += 3

        self.put(copy)

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        self.captured = []
        try:
            work()
            return self.hold(self.captured)
        finally:
            self.captured = None

    def launch(self, graph: int, stream: int) -> None:
        for work in self.memory[graph]:
            self.put(work)

    free = destroy_stream = destroy_event = destroy_graph = drop
