"""A benchmark from files to results: engines are loaded and timed in turn, what was measured elsewhere is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from trtq.backends.measuring import BenchOptions
from trtq.bench import ingest, store
from trtq.bench.engines import Candidate, names_apart, ready
from trtq.bench.result import BenchResult
from trtq.bench.store import BenchRun
from trtq.bench.timing import measure
from trtq.errors import ConfigError, ModelError
from trtq.layers.graph import LayerGraph
from trtq.layers.source import read_source
from trtq.machine import machine
from trtq.machine.clocks import Watch

Progress = Callable[[int, int], None]
# Suffixes of what is never a measurement: plans are large, and need not be read to be told from logs.
ENGINE_SUFFIXES = (".onnx", ".plan", ".engine", ".trt")


def is_measured(path: Path) -> bool:
    """Tell whether a file holds measurements: a run that was stored, a log or times of trtexec; raises `ModelError`."""
    if path.suffix.lower() in ENGINE_SUFFIXES:
        return False
    source = read_source(path)
    if store.is_run(source.document) or ingest.is_measurement(source):
        return True
    if source.document is not None:
        raise ModelError(
            f"{path}: is JSON, but neither a run of `trtq bench` nor what trtexec writes; "
            "name an engine, an ONNX file, a log or exported times"
        )
    return False


def read_measured(paths: Sequence[Path]) -> tuple[BenchResult, ...]:
    """Return the results in files that are measured, under names that differ; raises `ModelError`."""
    found = [(one, path) for path in paths for one in _read(path)]
    names = names_apart([(one.name, path) for one, path in found])
    return tuple(replace(one, name=name) for (one, _), name in zip(found, names, strict=True))


def _read(path: Path) -> tuple[BenchResult, ...]:
    if store.is_run(read_source(path).document):
        return store.load(path).results
    return (ingest.read(path),)


def run(
    candidates: Sequence[Candidate],
    options: BenchOptions,
    *,
    recipe: str | None = None,
    images: Path | None = None,
    profile: bool = False,
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> tuple[BenchRun, dict[str, LayerGraph]]:
    """Load the engines, whose names differ, and time them in turn; return the run, and their layers by name.

    profile: whether layers are wanted.
    Raises `ConfigError`, `ModelError`, `DataError`, `MissingBackendError` as loading does.
    """
    gpu = any(one.on_gpu for one in candidates)
    if gpu and not all(one.on_gpu for one in candidates):
        raise ConfigError("engines of a GPU and of the processor are not comparable; bench them one after the other")
    here = machine(ask_driver=gpu)
    watch = Watch(gpu=gpu)
    with ExitStack() as stack:
        held = [stack.enter_context(ready(one, options, images=images, profile=profile)) for one in candidates]
        results = measure(
            {one.timed.name: one.timed for one in held}, options, watch, machine=here.to_json(), progress=progress
        )
        layers = {one.timed.name: one.layers for one in held if one.layers is not None}
    measured = BenchRun(
        when=store.now(),
        results=tuple(results.values()),
        recipe=recipe,
        readings=tuple(one.to_json() for one in watch.readings),
        unreadable=watch.unreadable,
        command=command,
        options=options.to_json(),
    )
    return measured, layers
