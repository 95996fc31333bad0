"""Maxima of activations, streamed through ONNX Runtime: the network computes them itself, one number a tensor."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq import backends
from trtq.errors import DataError, ModelError
from trtq.qdq import editing, reading
from trtq.qdq import model as onnx_file

Progress = Callable[[int, int], None]
FLOATS = ("float16", "float64")


def collect_max(model_path: Path, tensors: Sequence[str], images: Iterable[npt.NDArray[Any]]) -> dict[str, float]:
    """Return the largest absolute value that each of `tensors` takes over all images, in the order of `tensors`.

    images: float32 batches (n, ...) for the network's only input; a fixed batch in the file may differ from theirs.
    Memory is that of running one batch: the maxima are computed inside the network and only they come out.
    Raises `ModelError` for a tensor that the network lacks, that is not float, or that is not finite; `DataError` when
    there are no images or one is not finite; `MissingBackendError` without ONNX Runtime.
    """
    return max_of(onnx_file.load(model_path), tensors, images)


def max_of(
    model: ir.Model,
    tensors: Sequence[str],
    images: Iterable[npt.NDArray[Any]],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Do what `collect_max` does for a network in memory, which is left as it is.

    progress: called with how many batches are done, and of how many, where `images` has a length.
    """
    probed, outputs = _probed(model, tensors)
    session = _session(probed, threads)
    found = dict.fromkeys(tensors, -math.inf)
    for feed, _ in feeds(session, counted(images, progress)):
        values = session.run(feed)
        for tensor, (largest, total) in zip(tensors, outputs, strict=True):
            if not np.isfinite(values[total]):
                raise ModelError(f"tensor '{tensor}' is not finite on a calibration image; check the network's weights")
            found[tensor] = max(found[tensor], float(values[largest]))
    if any(value == -math.inf for value in found.values()):
        raise DataError("there are no calibration images; give at least one")
    return found


def sizes_of(model: ir.Model, tensors: Sequence[str], batch: npt.NDArray[Any]) -> dict[str, int]:
    """Return how many values each of `tensors` holds when the network runs on `batch`; raises as `max_of` does."""
    copy, values, taken = _bare(model, tensors)
    outputs = [_append(copy.graph, "Size", values[tensor], taken, ir.DataType.INT64) for tensor in tensors]
    copy.graph.outputs.extend(outputs)
    session = _session(copy)
    feed, _ = next(feeds(session, [batch]))
    found = session.run(feed)
    return {tensor: int(found[reading.name(one)]) for tensor, one in zip(tensors, outputs, strict=True)}


def _probed(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, list[tuple[str, str]]]:
    """Return a copy that outputs, for each tensor, max |x| and sum |x|: a maximum alone would pass over NaN."""
    copy, values, taken = _bare(model, tensors)
    outputs = []
    for tensor in tensors:
        magnitude = _append(copy.graph, "Abs", _as_float(copy.graph, values[tensor], taken), taken)
        largest = _append(copy.graph, "ReduceMax", magnitude, taken, keepdims=0)
        total = _append(copy.graph, "ReduceSum", magnitude, taken, keepdims=0)
        copy.graph.outputs.extend([largest, total])
        outputs.append((reading.name(largest), reading.name(total)))
    return copy, outputs


def _bare(model: ir.Model, tensors: Sequence[str]) -> tuple[ir.Model, Mapping[str, ir.Value], set[str]]:
    """Return a copy without outputs, its values by name, and all names of it."""
    copy = model.clone()
    ir.external_data.load_to_model(copy)
    values = ir.convenience.create_value_mapping(copy.graph)
    for tensor in tensors:
        if tensor not in values:
            raise ModelError(f"the network has no tensor '{tensor}'; give names of its activations")
    copy.graph.outputs.clear()
    return copy, values, editing.names(copy)


def _session(model: ir.Model, threads: int = 1) -> backends.Session:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probed.onnx"
        onnx_file.save(model, path)
        return backends.runner("ort").load(path, threads=threads)


def _as_float(graph: ir.Graph, value: ir.Value, taken: set[str]) -> ir.Value:
    if value.dtype in (ir.DataType.FLOAT, None):
        return value
    if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE):
        return _append(graph, "Cast", value, taken, to=int(ir.DataType.FLOAT))
    raise ModelError(f"tensor '{value.name}' holds {value.dtype}; only float activations have a range to collect")


def _append(
    graph: ir.Graph,
    kind: str,
    value: ir.Value,
    taken: set[str],
    dtype: ir.DataType = ir.DataType.FLOAT,
    **attributes: int,
) -> ir.Value:
    name = editing.unused_name(f"{value.name}_{kind}", taken)
    node = ir.node(kind, [value], attributes=attributes, name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(dtype)
    graph.append(node)
    return node.outputs[0]


def feeds(
    session: backends.Session, images: Iterable[npt.NDArray[Any]]
) -> Iterator[tuple[dict[str, npt.NDArray[Any]], int]]:
    """Yield what a session of one input is run with, and how many images are in it.

    `images` are cut, and filled up by repeating one, to the network's fixed batch, and take its float type.
    Raises `ModelError` for a network of several inputs, `DataError` for an image that is not finite.
    """
    if len(session.inputs) != 1:
        names = ", ".join(spec.name for spec in session.inputs)
        raise ModelError(f"the network has {len(session.inputs)} inputs ({names}); calibration feeds networks with one")
    [spec] = session.inputs
    fixed = spec.dims[0] if spec.dims and spec.dims[0] > 0 else None
    for batch in images:
        if not np.isfinite(batch).all():
            raise DataError("a calibration image holds NaN or infinity; check the data and its transforms")
        for start in range(0, len(batch), fixed or max(1, len(batch))):
            part = batch[start : start + fixed] if fixed else batch
            missing = 0 if fixed is None else fixed - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            yield {spec.name: filled.astype(spec.dtype) if spec.dtype in FLOATS else filled}, len(part)


def counted(images: Iterable[npt.NDArray[Any]], progress: Progress | None) -> Iterator[npt.NDArray[Any]]:
    """Yield `images` and tell `progress` how many are done, where they have a length."""
    total = len(images) if progress is not None and isinstance(images, Sized) else 0
    for done, batch in enumerate(images, start=1):
        yield batch
        if progress is not None and total:
            progress(done, total)
