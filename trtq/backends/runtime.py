"""Running engines on a GPU: the half that TensorRT 8.5 to 11 and TensorRT-RTX share, given the vendor's module."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trtq import files
from trtq.backends import TensorSpec, loading
from trtq.backends.cuda import Bytes, Cuda, device_memory, graph, open_cuda, pinned_memory, stream
from trtq.backends.feeds import check_feeds
from trtq.backends.launch import Lane, Launch, Work, launching
from trtq.errors import ConfigError, ModelError
from trtq.layers import inspector
from trtq.layers.graph import LayerGraph
from trtq.layers.times import with_times

# TensorRT's names of what NumPy can hold.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT64": "int64",
    "BOOL": "bool",
}  # fmt: skip
LINEAR = -1  # the vectorized dimension of a tensor that has none
FIRST_PROFILE = 0

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RunOptions:
    """How TensorRT-RTX is to run an engine; TensorRT knows none of this.

    runtime_cache: the file of kernels compiled for this GPU, read where it is there and written when the session is
    closed. built_in_graph: TensorRT-RTX keeps each run as a CUDA graph of its own. specialization: when kernels for
    the shapes that are met are compiled: "lazy" (meanwhile slower ones run), "eager" or "none".
    """

    runtime_cache: Path | None = None
    built_in_graph: bool = False
    specialization: Literal["lazy", "eager", "none"] | None = None


@dataclass(frozen=True)
class LayerTime:
    """One layer's times in microseconds, one a run."""

    name: str
    times_us: tuple[float, ...]


PLAIN = RunOptions()


class GpuSession:
    """An engine on the GPU, from `load_plan`; freed by `close`, at the end of a `with` block, or by its last reference.

    deserialize_s, context_s: how long loading took, in which TensorRT-RTX compiles its kernels for this GPU.
    first_run_s: the first run, which may go on compiling; None before it.
    """

    def __init__(
        self, module: Any, engine: Any, cuda: Cuda, plan: Path, options: RunOptions, deserialize_s: float
    ) -> None:
        self.inputs, self.outputs = _specs(engine, plan)
        self.plan = plan
        self.cuda = cuda
        self.deserialize_s = deserialize_s
        self.first_run_s: float | None = None
        self._module = module
        self._engine = engine
        self._options = options
        self._cache = _RuntimeCache(module, engine, options)
        self._resources = ExitStack()
        self._finalizer = weakref.finalize(self, self._resources.close)
        self._stream = self._resources.enter_context(stream(cuda))
        self._buffers = {spec.name: _Buffer(cuda, self._resources) for spec in (*self.inputs, *self.outputs)}
        start = time.perf_counter()
        self._context = self._new_context(built_in_graph=options.built_in_graph)
        self.context_s = time.perf_counter() - start

    def __enter__(self) -> GpuSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything on the GPU, and keep the runtime cache where there is one; raises `OutputError`."""
        if self._finalizer.alive:
            try:
                self._cache.save()
            finally:
                self._context = self._engine = None
                self._finalizer()

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run once and return every output by name.

        Raises `ModelError` when the feeds do not fit, or with the vendor's or CUDA's own words when the run fails.
        """
        start = time.perf_counter()
        dims = self._bind(self._context, feeds)
        self._copy_in()
        self._enqueue(self._context)
        self._copy_out()
        self.cuda.synchronize(self._stream)
        if self.first_run_s is None:
            self.first_run_s = time.perf_counter() - start
        return {spec.name: self._array(spec, dims[spec.name]).copy() for spec in self.outputs}

    @contextmanager
    def prepare(
        self, feeds: Arrays, *, cuda_graph: bool = False, transfers: bool = False, spin: bool = True, streams: int = 1
    ) -> Iterator[Launch]:
        """Hold the engine ready to be timed on these arrays; runs once first, which ends all compiling.

        cuda_graph: launch the captured run instead of enqueueing kernel by kernel. transfers: copy inputs and outputs
        in every run. spin: wait with a busy processor, which ends sooner. streams: runs that overlap, each in a stream,
        a context and memory of its own. Meanwhile, no other method may be called. Raises `ModelError` as `run` does,
        or where the engine cannot be captured; `ConfigError` under pycuda, which has no graphs.
        """
        with ExitStack() as stack:
            sessions = [self, *(stack.enter_context(self._sibling()) for _ in range(1, streams))]
            lanes = [stack.enter_context(one._lane(feeds, cuda_graph)) for one in sessions]
            yield stack.enter_context(launching(self.cuda, lanes, spin=spin, transfers=transfers))

    def profile(self, feeds: Arrays, *, iterations: int = 10) -> tuple[LayerTime, ...]:
        """Return every layer's times, in execution order; each run is slower under the profiler than without.

        Raises `ModelError` when the feeds do not fit or the vendor's library reports no layers.
        """
        profiler = _profiler(self._module)
        # Up to TensorRT 9 no two contexts of an engine hold one shape profile, so the session's own one gives way.
        self._context = None
        try:
            self._profile(self._new_context(built_in_graph=False), profiler, feeds, iterations)
        finally:
            self._context = self._new_context(built_in_graph=self._options.built_in_graph)
        return _layer_times(profiler.runs[1:], self.plan)

    def _profile(self, context: Any, profiler: Any, feeds: Arrays, iterations: int) -> None:
        context.enqueue_emits_profile = False
        context.profiler = profiler
        self._bind(context, feeds)
        self._copy_in()
        for _ in range(iterations + 1):
            profiler.start_run()
            self._enqueue(context)
            self.cuda.synchronize(self._stream)
            if not context.report_to_profiler():
                raise ModelError(f"{self.plan}: {self._title} reports no layer times: {loading.telling(self._module)}")

    def layers(self, times: tuple[LayerTime, ...] = ()) -> LayerGraph:
        """Return the engine's layers as its inspector tells them, with the median of the times that `profile` gave.

        Raises `ModelError` where the engine was built to tell nothing, or where no time belongs to any layer.
        """
        found = inspector.read_graph(self.inspect(), str(self.plan))
        found = replace(found, source=self._title, targets=(self.cuda.device().sm,))
        if not times:
            return found
        return with_times(found, [(one.name, median(one.times_us)) for one in times], str(self.plan))

    def inspect(self) -> dict[str, Any]:
        """Return the JSON of the engine's inspector; raises `ModelError` where it tells nothing."""
        inspecting = self._engine.create_engine_inspector()
        inspecting.execution_context = self._context
        text = inspecting.get_engine_information(self._module.LayerInformationFormat.JSON)
        try:
            document = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.plan}: {self._title} tells no layers of it ({error})") from error
        if not inspector.is_inspector(document):
            raise ModelError(f"{self.plan}: {self._title} tells no layers of it; build it with profiling verbosity")
        found: dict[str, Any] = document
        return found

    @property
    def _title(self) -> str:
        return loading.title(self._module)

    @contextmanager
    def _lane(self, feeds: Arrays, cuda_graph: bool) -> Iterator[Lane]:
        self.run(feeds)
        compute = partial(self._enqueue, self._context)
        with ExitStack() as stack:
            if cuda_graph:
                self._check_capturable()
                try:
                    captured = stack.enter_context(graph(self.cuda, self._stream, compute))
                except ModelError as error:
                    raise ModelError(f"{error}; it runs without a CUDA graph, so measure without one") from error
                compute = partial(self.cuda.launch, captured, self._stream)
            yield Lane(self._stream, Work(self._copy_in, compute, self._copy_out))

    def _sibling(self) -> GpuSession:
        """Return another session of the same engine, which leaves the runtime cache to this one."""
        options = replace(self._options, runtime_cache=None)
        return GpuSession(self._module, self._engine, self.cuda, self.plan, options, self.deserialize_s)

    def _new_context(self, *, built_in_graph: bool) -> Any:
        messages = loading.log_of(self._module).messages
        messages.clear()
        config = self._cache.config(built_in_graph=built_in_graph)
        arguments = () if config is None else (config,)
        context = self._engine.create_execution_context(*arguments)
        if context is None:
            raise ModelError(f"{self.plan}: {self._title} cannot prepare it to run: {loading.telling(self._module)}")
        return context

    def _bind(self, context: Any, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        """Give the context its shapes and addresses, place the inputs in pinned memory, and return all dimensions."""
        check_feeds(arrays, self.inputs, str(self.plan))
        for spec in self.inputs:
            shape = arrays[spec.name].shape
            if -1 in spec.dims and not context.set_input_shape(spec.name, shape):
                raise ModelError(self._out_of_range(spec, shape))
        dims = {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in (*self.inputs, *self.outputs)}
        for spec in (*self.inputs, *self.outputs):
            if -1 in dims[spec.name]:
                raise ModelError(
                    f"{self.plan}: the shape of output '{spec.name}' depends on the data, which trtq does not run; "
                    "end the network before that operator"
                )
            buffer = self._buffers[spec.name]
            buffer.fit(int(np.prod(dims[spec.name], dtype=np.int64)) * np.dtype(spec.dtype).itemsize)
            context.set_tensor_address(spec.name, buffer.address)
        for spec in self.inputs:
            self._array(spec, dims[spec.name])[...] = arrays[spec.name]
        return dims

    def _out_of_range(self, spec: TensorSpec, shape: tuple[int, ...]) -> str:
        smallest, _, largest = map(tuple, self._engine.get_tensor_profile_shape(spec.name, FIRST_PROFILE))
        if all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            # Up to TensorRT 9 a second stream's context cannot have the shape profile of the first.
            words = loading.telling(self._module)
            return f"{self.plan}: {self._title} does not take {list(shape)} for '{spec.name}': {words}"
        return (
            f"{self.plan}: input '{spec.name}' takes shapes from {list(smallest)} to {list(largest)}, "
            f"but was given {list(shape)}"
        )

    def _array(self, spec: TensorSpec, dims: tuple[int, ...]) -> npt.NDArray[Any]:
        return self._buffers[spec.name].pinned.view(spec.dtype).reshape(dims)

    def _copy_in(self) -> None:
        for spec in self.inputs:
            buffer = self._buffers[spec.name]
            self.cuda.copy_in(buffer.address, buffer.pinned, self._stream)

    def _copy_out(self) -> None:
        for spec in self.outputs:
            buffer = self._buffers[spec.name]
            self.cuda.copy_out(buffer.pinned, buffer.address, self._stream)

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream):
            raise ModelError(f"{self.plan}: {self._title} cannot run it: {loading.telling(self._module)}")

    def _check_capturable(self) -> None:
        asked = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX alone
        if asked is not None and not asked(self._stream):
            raise ModelError(
                f"{self.plan}: {self._title} cannot capture it as a CUDA graph, as with shapes whose kernels are not "
                "compiled yet; measure without one"
            )


def load_plan(module: Any, plan: Path, *, options: RunOptions = PLAIN, cuda: Cuda | None = None) -> GpuSession:
    """Return a session of a plan, run by the vendor's `module`: tensorrt or tensorrt_rtx.

    cuda: CUDA where the process holds it already. Raises `MissingBackendError` where there is no GPU, no driver, or
    neither cuda-python nor pycuda; `ModelError` where the plan is missing, refused, or has inputs or outputs that
    NumPy cannot hold; `ConfigError` for options that this vendor does not have.
    """
    start = time.perf_counter()
    engine = loading.deserialize(module, plan)
    return GpuSession(module, engine, cuda or open_cuda(), plan, options, time.perf_counter() - start)


class _Buffer:
    """One tensor's memory on the device and on the host, which grows with its shape."""

    def __init__(self, cuda: Cuda, resources: ExitStack) -> None:
        self._cuda = cuda
        self._held = resources.enter_context(ExitStack())
        self._capacity = -1
        self.address = 0
        self.pinned: Bytes = np.empty(0, np.uint8)
        self._all: Bytes = self.pinned

    def fit(self, size_bytes: int) -> None:
        """Make room for so many bytes."""
        if size_bytes > self._capacity:
            self._held.close()
            self._capacity = -1
            self.address = self._held.enter_context(device_memory(self._cuda, size_bytes))
            self._all = self._held.enter_context(pinned_memory(self._cuda, size_bytes))
            self._capacity = size_bytes
        self.pinned = self._all[:size_bytes]


class _RuntimeCache:
    """TensorRT-RTX's own ways of running, and the kernels that it keeps from one process to the next."""

    def __init__(self, module: Any, engine: Any, options: RunOptions) -> None:
        if options != PLAIN and not hasattr(module, "CudaGraphStrategy"):
            raise ConfigError(
                f"{loading.title(module)} has no runtime cache, no graphs of its own and no kernel specialization; "
                "only TensorRT-RTX has"
            )
        self._module = module
        self._engine = engine
        self._options = options
        self._cache: Any = None

    def config(self, *, built_in_graph: bool) -> Any:
        """Return what a context is to be created with, None for the vendor's defaults."""
        options = replace(self._options, built_in_graph=built_in_graph)
        if options == PLAIN:
            return None
        config = self._engine.create_runtime_config()
        if built_in_graph:
            config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if options.specialization is not None:
            strategies = self._module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, options.specialization.upper())
        if options.runtime_cache is not None:
            self._cache = self._cache or self._read(config, options.runtime_cache)
            config.set_runtime_cache(self._cache)
        return config

    def save(self) -> None:
        """Write the compiled kernels, where a file for them was asked for, and let go of the engine."""
        if self._cache is not None and self._options.runtime_cache is not None:
            files.write_bytes(self._options.runtime_cache, bytes(self._cache.serialize()))
        self._engine = self._cache = None

    def _read(self, config: Any, path: Path) -> Any:
        cache = config.create_runtime_cache()
        if path.is_file():
            # Another GPU's or version's is refused, and the cache stays empty: nothing else changes.
            cache.deserialize(path.read_bytes())
        return cache


def _profiler(module: Any) -> Any:
    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.runs: list[list[tuple[str, float]]] = []

        def start_run(self) -> None:
            self.runs.append([])

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.runs[-1].append((layer_name, 1000 * ms))

    return Profiler()


def _layer_times(runs: list[list[tuple[str, float]]], plan: Path) -> tuple[LayerTime, ...]:
    """Return the times by layer: every run reports the same layers in the same order."""
    names = [[name for name, _ in run] for run in runs]
    if not names or not names[0] or any(one != names[0] for one in names):
        raise ModelError(f"{plan}: the profiler reports no layers, or other ones in every run")
    return tuple(LayerTime(rows[0][0], tuple(time_us for _, time_us in rows)) for rows in zip(*runs, strict=True))


def _specs(engine: Any, plan: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return an engine's inputs and outputs; raises `ModelError` for those that trtq cannot feed or read."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found: dict[str, list[TensorSpec]] = {"INPUT": [], "OUTPUT": []}
    for name in names:
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise ModelError(
                f"{plan}: '{name}' is {kind}, which NumPy cannot hold; build it with float inputs and outputs"
            )
        if engine.get_tensor_location(name).name == "HOST":
            raise ModelError(f"{plan}: '{name}' holds a shape, not data; trtq runs engines whose inputs are data alone")
        if engine.get_tensor_vectorized_dim(name) != LINEAR:
            raise ModelError(
                f"{plan}: '{name}' has a vectorized format; build it without --inputIOFormats and the like"
            )
        dims = tuple(engine.get_tensor_shape(name))
        found[engine.get_tensor_mode(name).name].append(TensorSpec(name, dims, DTYPES[kind]))
    return tuple(found["INPUT"]), tuple(found["OUTPUT"])
