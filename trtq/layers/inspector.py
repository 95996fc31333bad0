"""The JSON of TensorRT's engine inspector (`trtexec --exportLayerInfo`), 8.x to 11.x, and of its per-layer profile."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtq import files
from trtq.errors import ModelError
from trtq.layers import onnx_names
from trtq.layers.dtypes import dtype
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.rtx import SYNCHRONIZATION
from trtq.layers.signals import signals

NAMES_ONLY_NOTE = "built without detailed profiling verbosity: layer names only"
# Inputs of cache-control kernels in 11.x: no activation, though by bytes they would dominate.
CACHE_PREFIXES = ("l2_cache_policy_inputs_", "l2_cache_management_")
REFORMAT_PREFIX = "Reformatting CopyNode"
_NAME_JOINT = " + "


def is_inspector(document: Any) -> bool:
    """Tell whether the JSON value is an engine's layer information (8.x to 10.x, or 11.x)."""
    return isinstance(document, dict) and isinstance(document.get("Layers"), list) and "trtq_layers" not in document


def read_graph(document: dict[str, Any], where: str) -> LayerGraph:
    """Return the measured layer graph of an inspector document; raises `ModelError` when a layer is malformed.

    Conversions are the `Reformat` layers whose origin is `QDQ`; 11.x has no such layers, hence no count there.
    """
    rows = document["Layers"]
    modern = "I/O Tensors" in document
    try:
        layers = tuple(_layer(row) for row in rows if not _synchronizes(row))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{where}: a layer is not as TensorRT's inspector writes it ({error!r}); export it again"
        ) from error
    if not layers:
        raise ModelError(f"{where}: lists no layers; build the engine with --profilingVerbosity=detailed")
    detailed = any(isinstance(row, dict) for row in rows)
    return LayerGraph(
        origin="measured",
        source="TensorRT 11" if modern else "TensorRT 8 to 10",
        layers=layers,
        signals=signals(layers, "measured", conversions_known=detailed and not modern),
        notes=() if detailed else (NAMES_ONLY_NOTE,),
    )


def with_profile(graph: LayerGraph, profile: Path) -> LayerGraph:
    """Return the graph with each layer's median time from `trtexec --exportProfile` (mean before 8.4).

    Rows belong to layers by name, in order where a name repeats. Raises `ModelError` when the file is no profile or
    names none of the layers.
    """
    times = _times_us(files.read_json(profile), str(profile))
    layers = tuple(replace(layer, time_us=_take(times[layer.name])) for layer in graph.layers)
    if all(layer.time_us is None for layer in layers):
        raise ModelError(f"{profile}: names none of the engine's layers; use the profile of the same engine")
    known = graph.signals.conversions is not None
    return replace(graph, layers=layers, signals=signals(layers, graph.origin, conversions_known=known))


def _times_us(rows: Any, where: str) -> defaultdict[str, deque[float]]:
    times: defaultdict[str, deque[float]] = defaultdict(deque)
    try:
        for row in rows:
            if "name" in row:
                times[row["name"]].append(1000 * float(row.get("medianMs", row["averageMs"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: is not a per-layer profile of trtexec ({error!r}); use --exportProfile") from error
    return times


def _take(times: deque[float]) -> float | None:
    return times.popleft() if times else None


def _synchronizes(row: Any) -> bool:
    return isinstance(row, dict) and row["LayerType"] in (*SYNCHRONIZATION, "signal_and_wait")


def _layer(row: Any) -> Layer:
    if isinstance(row, str):
        return Layer(name=row, kind="unknown", inputs=(), outputs=(), onnx_nodes=_nodes(row, ""))
    name = str(row["Name"])
    return Layer(
        name=name,
        kind=_kind(row),
        inputs=_tensors(row["Inputs"]),
        outputs=_tensors(row["Outputs"]),
        onnx_nodes=_nodes(name, str(row.get("Metadata", ""))),
        tactic=str(row.get("TacticName", "")),
    )


def _kind(row: dict[str, Any]) -> str:
    kind = str(row["LayerType"])
    return f"{kind} {row['Origin']}" if kind == "Reformat" and "Origin" in row else kind


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    if metadata or name.startswith(REFORMAT_PREFIX):
        return onnx_names.split(metadata)
    # Before 8.6 there is no metadata: the layer's name joins the ONNX nodes' and weights' names instead.
    return tuple(dict.fromkeys(name.split(_NAME_JOINT)))


def _tensors(rows: Iterable[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(_tensor(row) for row in rows if not str(row["Name"]).startswith(CACHE_PREFIXES))


def _tensor(row: dict[str, Any]) -> Tensor:
    text = str(row.get("Datatype", row.get("Format/Datatype", "")))
    layout = str(row.get("Format", row.get("Format/Datatype", "")))
    return Tensor(str(row["Name"]), tuple(int(dim) for dim in row["Dimensions"]), dtype(text), layout)
