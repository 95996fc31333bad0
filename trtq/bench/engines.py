"""Engines ready to be timed: a plan on the GPU or through trtexec, an ONNX file through ONNX Runtime on the CPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import backends
from trtq.backends import TensorSpec, manifest, onnx_file, ort_profile, trtexec_bench
from trtq.backends.form import form_of
from trtq.backends.measuring import BenchOptions
from trtq.backends.ort_native import PLAN_NAME as NATIVE_PLAN
from trtq.backends.runtime import GpuSession
from trtq.bench.timing import HostTimer, Timed
from trtq.config import MODES, Mode, Recipe, did_you_mean
from trtq.data.images import load_images
from trtq.errors import ConfigError, ModelError
from trtq.layers.graph import LayerGraph
from trtq.machine import machine

GPU, CPU = ("trt", "rtx"), ("ort", "ort-native")
TRTEXEC = "trtexec"
BACKENDS = (*GPU, TRTEXEC, *CPU)
ONNX_SUFFIX = ".onnx"
CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
VENDORS = {"trt": "TensorRT", "rtx": "TensorRT-RTX", TRTEXEC: "TensorRT"}
CPU_NOTE = "times of ONNX Runtime on this processor; a GPU's differ"
HALF_NOTE = "FP16 on the processor: ONNX Runtime casts to float, computes in float and casts back"
BATCH_NOTE = "trtexec does not tell an engine's batch, which counts as 1 here"
EXPORTED_NOTE = "Q/DQ as exported for TensorRT; what a processor is deployed with is the back end ort-native"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Candidate:
    """An engine file to be benchmarked: what it is called, where it lies, and who runs it."""

    name: str
    path: Path
    backend: str

    @property
    def on_gpu(self) -> bool:
        """Whether it needs a GPU."""
        return self.backend not in CPU


@dataclass(frozen=True)
class Ready:
    """An engine that is loaded and has its input; layers: with their times, where they were asked for."""

    timed: Timed
    layers: LayerGraph | None = None


def candidate(path: Path, backend: str | None = None) -> Candidate:
    """Return how an engine file is to be run: as `backend` says, else as its manifest does; ONNX by ONNX Runtime.

    Raises `ConfigError` for a back end that cannot run it, `ModelError` for a missing file or manifest.
    """
    if backend is not None and backend not in BACKENDS:
        hint = did_you_mean(backend, BACKENDS) or f"; known are {', '.join(BACKENDS)}"
        raise ConfigError(f"back end '{backend}' is not known{hint}")
    if not path.is_file():
        raise ModelError(f"{path}: no such engine; build it first")
    if path.suffix.lower() == ONNX_SUFFIX:
        if backend not in (None, *CPU):
            raise ConfigError(f"{path}: is an ONNX file, which '{backend}' does not run; build an engine of it first")
        return Candidate(path.stem, path, backend or ("ort-native" if path.name == NATIVE_PLAN else "ort"))
    built_by = manifest.read(path).identity.backend
    if backend not in (None, built_by, TRTEXEC) or (backend == TRTEXEC and built_by not in ("trt", TRTEXEC)):
        raise ConfigError(f"{path}: is an engine of '{built_by}', which '{backend}' does not run")
    return Candidate(path.stem, path, backend or built_by)


def of_recipe(recipe: Recipe, modes: tuple[Mode, ...], backend: str | None = None) -> list[Candidate]:
    """Return the engines of a recipe's modes, all of one back end: the first of the recipe's that this machine can run.

    ONNX Runtime's native form goes before the file as exported. Raises `ConfigError`, and `ModelError` for a mode that
    is not built.
    """
    wanted = backend or _runnable(recipe)
    return [Candidate(mode, _built(recipe, mode, wanted), wanted) for mode in modes]


def built_modes(recipe: Recipe, backend: str | None = None) -> tuple[Mode, ...]:
    """Return the modes of which a recipe has an engine of that back end, or of the one that is timed unasked.

    Raises `ModelError` where there is none, `ConfigError` as `of_recipe` does.
    """
    wanted = backend or _runnable(recipe)
    name = backends.builder(wanted).PLAN_NAME
    found = tuple(mode for mode in MODES if (recipe.folder / mode / name).is_file())
    if not found:
        raise ModelError(f"{recipe.folder}: holds no engine of '{wanted}'; run `trtq build {recipe.path}` first")
    return found


def names_apart(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Return names that differ: with their folders' where files are called alike, then counted."""
    alike = Counter(name for name, _ in named)
    foldered = [f"{path.resolve().parent.name}/{name}" if alike[name] > 1 else name for name, path in named]
    seen: Counter[str] = Counter()
    found = []
    for name in foldered:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


@contextmanager
def ready(
    one: Candidate, options: BenchOptions, *, images: Path | None = None, profile: bool = False
) -> Iterator[Ready]:
    """Hold an engine loaded, with its input in place; images: real ones instead of random numbers.

    profile: take the times of its layers first, by TensorRT's or ONNX Runtime's own profiler, under which a run takes
    longer. Raises `ConfigError` for a profile through trtexec, which writes one itself;
    `MissingBackendError` where what runs it is not here, `ModelError` where the engine is foreign, damaged or takes no
    such batch, `DataError` for images that do not fit.
    """
    if one.on_gpu and options.clock == "cpu":
        raise ConfigError(f"{one.path}: runs on a GPU, and --cpu-time is the processor's; leave it out")
    if one.backend == TRTEXEC:
        if profile or images is not None:
            raise ConfigError(f"{one.path}: trtexec takes no images, and exports layers itself; use --backend trt")
        timer = trtexec_bench.TrtexecTimer(one.path, options)
        dialect = f"{VENDORS[TRTEXEC]} {timer.version}"
        slice_s = trtexec_bench.SHORTEST_SLICE_S
        about: dict[str, Any] = {"input": trtexec_bench.INPUT}
        yield Ready(
            Timed(one.name, timer, TRTEXEC, dialect, 1, about, slice_s, warms_up_itself=True, notes=(BATCH_NOTE,))
        )
        return
    if one.backend in CPU:
        yield _on_cpu(one, options, images, profile=profile)
        return
    runner = backends.runner(one.backend)
    session = runner.load(one.path)
    assert isinstance(session, GpuSession)
    with session:
        feeds = make_feeds(session.inputs, options, images, one.path)
        graph = session.layers(session.profile(feeds)) if profile else None
        prepared = session.prepare(
            feeds,
            cuda_graph=options.cuda_graph,
            transfers=options.data_transfers,
            spin=options.spin_wait,
            streams=options.streams,
        )
        with prepared as launch:
            version = backends.builder(one.backend).version()
            dialect = f"{VENDORS[one.backend]} {version}"
            about = {"input": _input_word(options, images)}
            yield Ready(Timed(one.name, launch, one.backend, dialect, _batch(feeds), about), graph)


def make_feeds(inputs: tuple[TensorSpec, ...], options: BenchOptions, images: Path | None, where: Path) -> Arrays:
    """Return one batch for an engine: the first images, or random numbers in 0..1 by the seed; 0 and 1 for integers.

    Raises `ModelError` where the batch does not fit, `DataError` for images that do not.
    """
    shapes = {spec.name: _shape(spec, options, where) for spec in inputs}
    if images is not None:
        return _image_feeds(inputs, shapes, images, where)
    random = np.random.default_rng(options.seed)
    return {spec.name: _random(random, shapes[spec.name], spec.dtype) for spec in inputs}


def _on_cpu(one: Candidate, options: BenchOptions, images: Path | None, *, profile: bool) -> Ready:
    if options.streams > 1:
        raise ConfigError("several streams are for a GPU; ONNX Runtime takes --threads")
    runner = backends.runner("ort-native")
    session = runner.load(one.path, threads=options.threads)
    feeds = make_feeds(session.inputs, options, images, one.path)
    # What a GPU alone has is neither on nor off.
    nothing = dict.fromkeys(("streams", "cuda_graph", "spin_wait", "data_transfers"))
    about = {**nothing, "threads": options.threads, "clock": options.clock, "input": _input_word(options, images)}
    dialect = f"ONNX Runtime {backends.builder('ort').version()}"
    graph = ort_profile.measured_layers(one.path, feeds, threads=options.threads) if profile else None
    timer = HostTimer(session, feeds, CLOCKS[options.clock])
    timed = Timed(one.name, timer, one.backend, dialect, _batch(feeds), about, notes=_cpu_notes(one))
    return Ready(timed, graph)


def _cpu_notes(one: Candidate) -> tuple[str, ...]:
    form = form_of(onnx_file.load(one.path))
    notes = [CPU_NOTE]
    if form.floats == "float16":
        notes.append(HALF_NOTE)
    if form.quantizers and one.backend == "ort":
        notes.append(EXPORTED_NOTE)
    return tuple(notes)


def _shape(spec: TensorSpec, options: BenchOptions, where: Path) -> tuple[int, ...]:
    if not spec.dims or (spec.dims[0] != -1 and options.batch in (None, spec.dims[0])):
        first: tuple[int, ...] = spec.dims[:1]
    elif spec.dims[0] == -1:
        first = (options.batch or 1,)
    else:
        raise ModelError(
            f"{where}: has a fixed batch of {spec.dims[0]}, so it cannot run {options.batch}; build it for that batch"
        )
    if -1 in spec.dims[1:]:
        raise ModelError(f"{where}: input '{spec.name}' is {list(spec.dims)}; fix all but the batch, or use trtexec")
    return (*first, *spec.dims[1:])


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return random.random(shape).astype(kind)
    return random.integers(0, 2, shape).astype(kind)


def _image_feeds(
    inputs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]], images: Path, where: Path
) -> Arrays:
    if len(inputs) != 1:
        raise ModelError(f"{where}: takes {len(inputs)} inputs; images are for an engine of one")
    (spec,) = inputs
    shape = shapes[spec.name]
    batch = next(iter(load_images(images, shape, shape[0])), None)
    if batch is None or len(batch) < shape[0]:
        raise ModelError(f"{images}: holds fewer than the {shape[0]} images of a batch of {where}")
    return {spec.name: batch.astype(spec.dtype)}


def _batch(feeds: Mapping[str, npt.NDArray[Any]]) -> int:
    first = next(iter(feeds.values()))
    return int(first.shape[0]) if first.ndim else 1


def _input_word(options: BenchOptions, images: Path | None) -> str:
    return f"random, seed {options.seed}" if images is None else f"images of {images.name}"


def _runnable(recipe: Recipe) -> str:
    """Return the back end of a recipe's engines that is timed unasked: a GPU's where one is, else ONNX Runtime's."""
    built = recipe.engine.backends
    on_gpu = [name for name in (*GPU, TRTEXEC) if name in built]
    if on_gpu and machine(ask_driver=True).gpus:
        return on_gpu[0]
    on_cpu = [name for name in reversed(CPU) if name in built]
    if not on_cpu:
        raise ConfigError(
            f"{recipe.path}: builds for {', '.join(built)} alone, and no GPU is here; add ort-native to its back ends"
        )
    return on_cpu[0]


def _built(recipe: Recipe, mode: Mode, backend: str) -> Path:
    path = recipe.folder / mode / backends.builder(backend).PLAN_NAME
    # An engine may have been built into the folder by itself, on the device that runs it.
    if path.is_file():
        return path
    if backend not in recipe.engine.backends:
        known = ", ".join(recipe.engine.backends)
        raise ConfigError(f"{recipe.path}: does not build for '{backend}'; its back ends are {known}")
    raise ModelError(f"{path}: is not built; run `trtq build {recipe.path} --mode {mode}` first")
