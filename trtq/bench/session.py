"""A benchmark from files to results: engines are loaded and timed in turn, what was measured elsewhere is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from trtq.backends import manifest
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


def measured(path: Path) -> tuple[BenchResult, ...] | None:
    """Return the results in a file: of a run that was stored, a log or times of trtexec; None for an engine.

    Raises `ModelError` for a file that is neither.
    """
    if path.suffix.lower() in ENGINE_SUFFIXES or manifest.path_of(path).is_file():
        return None
    source = read_source(path)
    if store.is_run(source.document):
        return store.of_document(source.document, path).results
    if ingest.is_measurement(source):
        return ingest.results(source)
    if source.document is None and b"\0" in source.content:
        return None
    kind = "text" if source.document is None else "JSON"
    raise ModelError(
        f"{path}: is {kind}, but neither a run of `trtq bench` nor what trtexec writes; "
        "name an engine, an ONNX file, a log or exported times"
    )


def named_apart(
    candidates: Sequence[Candidate], read: Sequence[tuple[BenchResult, Path]]
) -> tuple[list[Candidate], tuple[BenchResult, ...]]:
    """Return engines, and results with the files that they are from, under names that differ."""
    names = iter(
        names_apart([*((one.name, one.path) for one in candidates), *((one.name, path) for one, path in read)])
    )
    return [replace(one, name=next(names)) for one in candidates], tuple(
        replace(one, name=next(names)) for one, _ in read
    )


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
