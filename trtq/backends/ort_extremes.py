"""The smallest and largest value of every activation, streamed through ONNX Runtime over calibration batches."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.backends import Progress, Session, ort
from trtq.errors import DataError, ModelError
from trtq.qdq import editing, reading
from trtq.qdq import model as onnx_file

Array = npt.NDArray[Any]
Extremes = Mapping[str, tuple[float, float]]
PHASE = "Calibrating"


def extremes(model: ir.Model, batches: Path, progress: Progress | None = None) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of each float activation of `model` and of its input.

    batches: a folder of .npy files, float32 (n, ...) each, read one at a time in order of name. The network computes
    its own extremes, so memory is that of running one batch. A fixed batch in the network may differ from theirs.
    Raises `DataError` where there are no batches or one is unusable, `ModelError` for a tensor that is not finite or a
    network of several inputs, `MissingBackendError` without ONNX Runtime.
    """
    paths = sorted(batches.glob("*.npy"))
    if not paths:
        raise DataError(f"{batches}: holds no calibration batches (.npy files); save at least one")
    probed, tensors = _probed(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probed.onnx"
        onnx_file.save(probed, path)
        session = ort.load(path)
    low, high = np.full(len(tensors), math.inf), np.full(len(tensors), -math.inf)
    for number, batch in enumerate(paths):
        if progress is not None:
            progress(PHASE, number, len(paths))
        for feed in _feeds(session, batch):
            found = np.array(list(session.run(feed).values()), np.float64).reshape(len(tensors), 3)
            _check_finite(found, tensors, batch)
            low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
    if progress is not None:
        progress(PHASE, len(paths), len(paths))
    return {name: (float(a), float(b)) for name, a, b in zip(tensors, low, high, strict=True)}


def _probed(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """Return a copy that outputs min, max and sum of each activation: extremes alone would pass over NaN."""
    copy = model.clone()
    ir.external_data.load_to_model(copy)
    taken = editing.names(copy)
    values = [value for value in copy.graph.inputs if not value.is_initializer()]
    values += [value for node in copy.graph for value in node.outputs if _is_float_activation(node, value)]
    copy.graph.outputs.clear()
    for value in values:
        for kind in ("ReduceMin", "ReduceMax", "ReduceSum"):
            name = editing.unused_name(f"{value.name}_{kind}", taken)
            node = ir.node(kind, [value], attributes={"keepdims": 0}, name=name)
            node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
            copy.graph.append(node)
            copy.graph.outputs.append(node.outputs[0])
    return copy, [reading.name(value) for value in values]


def _is_float_activation(node: ir.Node, value: ir.Value) -> bool:
    if reading.is_dequantize(node) and not value.is_graph_output():
        return False
    return value.dtype == ir.DataType.FLOAT and node.op_type != "Constant"


def _feeds(session: Session, path: Path) -> Iterator[dict[str, Array]]:
    """Yield what a session of one input is run with: a batch cut and filled up to what the network takes."""
    if len(session.inputs) != 1:
        names = ", ".join(spec.name for spec in session.inputs)
        raise ModelError(f"the network has {len(session.inputs)} inputs ({names}); calibration feeds networks with one")
    [spec] = session.inputs
    batch = _read(path)
    fits = batch.ndim == len(spec.dims) and all(
        want in (-1, have) for want, have in zip(spec.dims[1:], batch.shape[1:], strict=True)
    )
    if batch.dtype.name != spec.dtype or not fits or not batch.size:
        raise DataError(
            f"{path}: holds {batch.dtype.name} {list(batch.shape)}, but the network's input '{spec.name}' takes"
            f" {spec.dtype} {list(spec.dims)}"
        )
    size = spec.dims[0] if spec.dims[0] > 0 else len(batch)
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        # Repeating an image changes no extreme.
        yield {spec.name: np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])}


def _read(path: Path) -> Array:
    try:
        batch: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a NumPy array file; save calibration batches with numpy.save") from error
    if batch.dtype.kind == "f" and not np.isfinite(batch).all():
        raise DataError(f"{path}: holds NaN or infinity; check the data and its transforms")
    return batch


def _check_finite(found: Array, tensors: list[str], batch: Path) -> None:
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if wrong.size:
        raise ModelError(
            f"tensor '{tensors[int(wrong[0])]}' is not finite on the calibration batch {batch.name}; check the"
            " network's weights"
        )
