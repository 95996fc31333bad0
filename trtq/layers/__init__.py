"""Layer graphs: what an engine runs, layer by layer, and one reader a format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from trtq.errors import ModelError
from trtq.layers import inspector, oneline, ort, rtx, trtexec_log, trtexec_times
from trtq.layers.graph import Layer, LayerGraph, Signals, Tensor, load_layers
from trtq.layers.source import Source, read_source
from trtq.layers.times import with_times

__all__ = ["READERS", "Layer", "LayerGraph", "Reader", "Signals", "Tensor", "read"]

MEAN_NOTE = "times are means: trtexec writes medians from 8.4 on"


class Request(NamedTuple):
    """What is asked of a reader besides the file: a profile of it, and which optimization profile (None: lowest)."""

    profile: Source | None = None
    optimization_profile: int | None = None


class Reader(NamedTuple):
    """A format: whether a file is of it, and how to read it."""

    accepts: Callable[[Source], bool]
    read: Callable[[Source, Request], LayerGraph]


# In this order: trtexec's log of an 11.x engine holds a table that is TensorRT-RTX's too.
READERS: dict[str, Reader] = {
    "onnxruntime": Reader(ort.is_network, lambda source, request: ort.read_graph(source, request.profile)),
    "trtexec-log": Reader(
        lambda source: oneline.holds_table(source.text),
        lambda source, request: oneline.read_graph(source.text, str(source.path), request.optimization_profile),
    ),
    "rtx": Reader(
        lambda source: rtx.holds_table(source.text),
        lambda source, request: rtx.read_graph(source.text, str(source.path)),
    ),
    "trtq": Reader(
        lambda source: isinstance(source.document, dict) and "trtq_layers" in source.document,
        lambda source, request: load_layers(source.path),
    ),
    "inspector": Reader(
        lambda source: inspector.is_inspector(source.document),
        lambda source, request: inspector.read_graph(source.document, str(source.path), request.optimization_profile),
    ),
}
TIMED_BY_READER = ("onnxruntime",)


def read(path: Path, profile: Path | None = None, optimization_profile: int | None = None) -> LayerGraph:
    """Read the layers of an engine from any format that READERS holds.

    `profile` adds measured times: `trtexec --exportProfile` to an engine's layers, ONNX Runtime's profile to the
    network that it wrote. `optimization_profile` picks one where the engine has several (None: the lowest). Raises
    `ModelError` when a file is missing, is of no known format, or is malformed.
    """
    source = read_source(path)
    times = None if profile is None else read_source(profile)
    for name, reader in READERS.items():
        if reader.accepts(source):
            graph = reader.read(source, Request(times, optimization_profile))
            return graph if times is None or name in TIMED_BY_READER else _timed(graph, times)
    raise ModelError(f"{path}: {_what_it_is(source)}")


def _timed(graph: LayerGraph, times: Source) -> LayerGraph:
    if graph.origin != "measured":
        raise ModelError(
            f"{times.path}: times were measured, and these layers are {graph.origin}; "
            "give the layers of the engine that was profiled"
        )
    profile = trtexec_times.profile(times)
    timed = with_times(graph, [(row.name, row.time_us) for row in profile.rows], str(times.path))
    if profile.has_medians:
        return timed
    return replace(timed, notes=(*timed.notes, MEAN_NOTE))


def _what_it_is(source: Source) -> str:
    document = source.document
    if trtexec_times.is_profile(document) or ort.is_profile(document):
        return "is a profile, which names layers but does not describe them; give the layer file, and this as --profile"
    if trtexec_times.is_times(document):
        return "holds the times of queries (trtexec --exportTimes), no layers; give what --exportLayerInfo writes"
    if trtexec_log.is_metadata(document):
        return "is what trt-engine-explorer made of a log, without layers; give what trtexec --exportLayerInfo writes"
    if trtexec_log.is_log(source.text):
        return "is a log of trtexec without a layer table; add --dumpLayerInfo, or give what --exportLayerInfo writes"
    if document is None and source.text.lstrip().startswith(("{", "[{", "[\n")):
        return f"is not JSON ({source.fault}); it may be cut short, so export it again"
    return (
        "holds no layers; give a layers.json of trtq, a TensorRT-RTX build log, "
        "or the JSON of trtexec --exportLayerInfo"
    )
