"""Looking into a network while it runs in ONNX Runtime: the values of any tensors, image by image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from trtq import backends
from trtq.errors import ModelError
from trtq.ptq.ranges import feeds
from trtq.qdq import model as onnx_file
from trtq.qdq import reading


def observe(
    model: ir.Model, tensors: Sequence[str], images: Iterable[npt.NDArray[Any]], *, threads: int = 1
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Run `model`, which is left as it is, over `images` and yield for each batch what `tensors` hold.

    images: float32 batches (n, ...) for the network's only input; the last is filled up to a fixed batch by repeating.
    Memory is that of running one batch with all `tensors` kept.
    Raises `ModelError` for a tensor that the network lacks or that ONNX Runtime cannot run it for, `DataError` for an
    image that is not finite, `MissingBackendError` without ONNX Runtime.
    """
    fed = {reading.name(value) for value in model.graph.inputs}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        onnx_file.save(showing(model, [tensor for tensor in tensors if tensor not in fed]), path)
        session = backends.runner("ort").load(path, threads=threads)
    for feed, _ in feeds(session, images):
        values = {**session.run(feed), **feed}
        yield {tensor: values[tensor] for tensor in tensors}


def input_shape(model: ir.Model) -> tuple[int, ...]:
    """Return the dimensions of the network's only input, -1 for a free one.

    Raises `ModelError` where there are several, or its rank is not known.
    """
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1 or inputs[0].shape is None:
        names = ", ".join(reading.name(value) for value in inputs) or "none"
        raise ModelError(f"the network's inputs are {names}; images are fed to networks with one of known rank")
    return tuple(dim if isinstance(dim, int) and dim > 0 else -1 for dim in inputs[0].shape)


def showing(model: ir.Model, tensors: Sequence[str]) -> ir.Model:
    """Return a copy whose outputs are `tensors`, or its own where there are none; `ModelError` for an unknown one."""
    copy = model.clone()
    values = ir.convenience.create_value_mapping(copy.graph)
    for tensor in tensors:
        if tensor not in values:
            raise ModelError(f"the network has no tensor '{tensor}'; give names of its activations")
    if tensors:
        copy.graph.outputs.clear()
        copy.graph.outputs.extend(values[tensor] for tensor in tensors)
    return copy
