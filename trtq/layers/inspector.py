"""The JSON of TensorRT's engine inspector (`trtexec --exportLayerInfo`), 8.2 to 11.x.

Up to 10.x a file has `Layers` and `Bindings`, and a tensor's dtype stands within `Format/Datatype`; from 11 on it has
`I/O Tensors` and `Datatype`. Without detailed profiling verbosity a layer is its name. What is not known stays as it is
and is said in a note.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from trtq.errors import ModelError
from trtq.layers import kinds, onnx_names
from trtq.layers.dtypes import dtype
from trtq.layers.generations import rename_generations
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.rtx import CACHE_PREFIXES, SYNCHRONIZATION
from trtq.layers.signals import signals

NAMES_ONLY_NOTE = "built without detailed profiling verbosity: layer names only"
NO_FORMATS_NOTE = "dynamic shapes, described without an execution context: some sizes and dtypes are not told"
STREAMS_NOTE = "runs on several streams: layer times overlap, and their sum is no latency"
REFORMAT_PREFIX = "Reformatting CopyNode"
NO_FORMAT = "N/A due to dynamic shapes"
SHOWN_UNKNOWN = 5
_NAME_JOINT = " + "
# In the middle of a name in 11.x: `node_conv2d [profile 1]_myl1_2`.
_PROFILE = re.compile(r" \[profile (\d{1,9})\]")


def is_inspector(document: Any) -> bool:
    """Tell whether the JSON value is an engine's layer information (8.x to 10.x, or 11.x)."""
    return isinstance(document, dict) and isinstance(document.get("Layers"), list) and "trtq_layers" not in document


def read_graph(document: dict[str, Any], where: str, optimization_profile: int | None = None) -> LayerGraph:
    """Return the measured layer graph of an inspector document; raises `ModelError` when a layer is malformed.

    An engine of several optimization profiles lists each layer once a profile: `optimization_profile` picks one, else
    the lowest. Leftover conversions are Reformat layers of origin `QDQ`, in 8.2 and 8.4 also Scale layers and Reformats
    without origin between float and int8; 11.x has no such layers, hence no count there.
    """
    modern = "I/O Tensors" in document
    source = "TensorRT 11" if modern else "TensorRT 8 to 10"
    return read_rows(document["Layers"], where, source, modern=modern, optimization_profile=optimization_profile)


def read_rows(
    rows: Sequence[Any], where: str, source: str, *, modern: bool = False, optimization_profile: int | None = None
) -> LayerGraph:
    """Return the layer graph of the inspector's rows, objects or names, in execution order; raises `ModelError`."""
    if not rows:
        raise ModelError(f"{where}: lists no layers; build the engine with --profilingVerbosity=detailed")
    parsed = [_layer(row, index, where) for index, row in enumerate(rows)]
    profiles = sorted({_profile_of(layer.name) for layer in parsed})
    wanted = profiles[0] if optimization_profile is None else optimization_profile
    if wanted not in profiles:
        raise ModelError(f"{where}: has no optimization profile {wanted}; it has {', '.join(map(str, profiles))}")
    kept = [
        (row, layer)
        for row, layer in zip(rows, parsed, strict=True)
        if _profile_of(layer.name) == wanted and layer.kind not in SYNCHRONIZATION
    ]
    if not kept:
        raise ModelError(f"{where}: lists only layers that synchronize streams; export the whole engine's")
    detailed = any(isinstance(row, dict) for row, _ in kept)
    graph = graph_of([layer for _, layer in kept], source, conversions_known=detailed and not modern)
    notes = [*([] if detailed else [NAMES_ONLY_NOTE]), *_row_notes([row for row, _ in kept if isinstance(row, dict)])]
    if len(profiles) > 1:
        notes.append(f"has {len(profiles)} optimization profiles; these are the layers of profile {wanted}")
    return LayerGraph(graph.origin, source, graph.layers, graph.signals, notes=(*notes, *graph.notes))


def graph_of(layers: Sequence[Layer], source: str, *, conversions_known: bool) -> LayerGraph:
    """Return the measured graph of layers in execution order, one name for one value, with what is to be noted."""
    unique, reused = rename_generations(layers)
    found = signals(unique, "measured", conversions_known=conversions_known)
    return LayerGraph("measured", source, unique, found, notes=tuple(_notes(unique, reused, conversions_known)))


def _notes(layers: Sequence[Layer], reused: int, conversions_known: bool) -> Iterable[str]:
    strange = Counter(layer.kind for layer in layers if layer.inputs or layer.outputs)
    strange = Counter({kind: n for kind, n in strange.items() if kind.partition(" ")[0] not in kinds.KNOWN})
    if strange:
        yield f"layer types that trtq does not know, kept as they are: {_listed(strange)}"
    untyped = (tensor for layer in layers for tensor in (*layer.inputs, *layer.outputs) if tensor.dtype == "unknown")
    if words := Counter(tensor.format for tensor in untyped if not tensor.format.startswith(NO_FORMAT)):
        yield f"tensors of a type that trtq does not know: {_listed(words)}"
    if reused:
        yield f"{reused} tensor names are written again after they were read; later values are called name#2 and so on"
    if conversions_known and (rounding := sum("Roun" in kinds.operations(layer) for layer in layers)):
        yield f"{rounding} generated kernels quantize within; conversions counts only layers that do nothing else"


def _row_notes(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    if len({row["StreamId"] for row in rows if isinstance(row.get("StreamId"), (int, str))}) > 1:
        yield STREAMS_NOTE
    tensors = (tensor for row in rows for key in ("Inputs", "Outputs") for tensor in row[key])
    if any(str(_written_format(tensor)).startswith(NO_FORMAT) for tensor in tensors):
        yield NO_FORMATS_NOTE


def _listed(found: Counter[str]) -> str:
    shown = ", ".join(f"{name!r} ({count})" for name, count in found.most_common(SHOWN_UNKNOWN))
    rest = len(found) - SHOWN_UNKNOWN
    return shown if rest <= 0 else f"{shown} and {rest} more"


def _profile_of(name: str) -> int:
    found = _PROFILE.search(name)
    return int(found[1]) if found else 0


def _layer(row: Any, index: int, where: str) -> Layer:
    if isinstance(row, str):
        return Layer(name=row, kind="unknown", inputs=(), outputs=(), onnx_nodes=_nodes(row, ""))
    if not isinstance(row, dict):
        raise ModelError(f"{where}: layer {index} is {_short(row)}, no layer of TensorRT's inspector; export it again")
    name, kind = _word(row, "Name", index, where), _word(row, "LayerType", index, where)
    inputs, outputs = _tensors(row, "Inputs", index, where), _tensors(row, "Outputs", index, where)
    return Layer(
        name=name,
        kind=_kind(kind, row.get("Origin"), name, inputs, outputs),
        inputs=inputs,
        outputs=outputs,
        onnx_nodes=_nodes(name, str(row.get("Metadata") or "")),
        tactic=str(row.get("TacticName", "")),
        precision=_precision(row.get("Weights", row.get("ConvWeights"))),
        weight_count=_weight_count(row),
    )


def _kind(kind: str, origin: Any, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    if kind == "Reformat" and isinstance(origin, str) and origin:
        return f"Reformat {origin}"
    if kind in ("Reformat", "Scale") and not name.startswith(REFORMAT_PREFIX) and _converts(inputs, outputs):
        return f"{kind} QDQ"
    return kind


def _converts(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Tell whether the one input is float and the one output int8, or the other way round."""
    if len(inputs) != 1 or len(outputs) != 1:
        return False
    before, after = inputs[0], outputs[0]
    return (kinds.is_float(before) and after.dtype == "int8") or (before.dtype == "int8" and kinds.is_float(after))


def _precision(weights: Any) -> DType:
    return dtype(str(weights.get("Type", ""))) if isinstance(weights, dict) else "unknown"


def _weight_count(row: dict[str, Any]) -> int | None:
    """Return how many weights the layer holds: as 8.2 to 10.x count them, from 11 on those of the largest constant."""
    weights = row.get("Weights", row.get("ConvWeights"))
    if isinstance(weights, dict):
        count = weights.get("Count")
        return count if type(count) is int and count > 0 else None
    constants = row.get("Constants")
    dims = [one.get("Dimensions") for one in constants if isinstance(one, dict)] if isinstance(constants, list) else []
    whole = [one for one in dims if isinstance(one, list) and all(type(dim) is int and dim > 0 for dim in one)]
    return max(map(math.prod, whole), default=None)


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    if metadata or name.startswith(REFORMAT_PREFIX):
        return onnx_names.split(metadata)
    # Before 8.6 there is no metadata: the layer's name joins the ONNX nodes' and weights' names instead.
    parts = (_PROFILE.sub("", part) for part in name.split(_NAME_JOINT))
    return tuple(dict.fromkeys(part for part in parts if part))


def _tensors(row: dict[str, Any], key: str, index: int, where: str) -> tuple[Tensor, ...]:
    rows = row.get(key)
    if not isinstance(rows, list) or not all(isinstance(tensor, dict) for tensor in rows):
        raise ModelError(f"{where}: layer {index} has {key} {_short(rows)}, not a list of tensors; export it again")
    tensors = (_tensor(tensor, index, where) for tensor in rows)
    return tuple(tensor for tensor in tensors if not tensor.name.startswith(CACHE_PREFIXES))


def _tensor(row: dict[str, Any], index: int, where: str) -> Tensor:
    name, dims = _word(row, "Name", index, where), row.get("Dimensions")
    if not isinstance(dims, list) or not all(type(dim) is int for dim in dims):
        raise ModelError(
            f"{where}: layer {index}, tensor {name[:60]!r}: dimensions are {_short(dims)}, not whole numbers; "
            "export it again"
        )
    return Tensor(name, tuple(dims), dtype(str(_written_dtype(row))), str(_written_format(row)))


def _written_dtype(row: dict[str, Any]) -> Any:
    return row.get("Datatype", row.get("Format/Datatype", ""))


def _written_format(row: dict[str, Any]) -> Any:
    return row.get("Format", row.get("Format/Datatype", ""))


def _word(row: dict[str, Any], key: str, index: int, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ModelError(f"{where}: layer {index}: {key} is {_short(value)}, not a text; export the layers again")
    return value


def _short(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'group'} of {len(value)}"
    return "missing" if value is None else repr(value)[:60]
