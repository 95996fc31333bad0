"""The layer table of TensorRT-RTX 1.7: one VERBOSE message of its builder that starts with `Layers:`.

A row is `Name, LayerType, Inputs[], Constants[], Outputs[], TacticName, StreamId[, EventId], Metadata`; a tensor in
a list is `Name, Dimensions, Strides, StrideOrder, Datatype, Format`. Names hold brackets and commas, so both are cut at
their keys, which come in a fixed order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trtq.errors import ModelError
from trtq.layers import onnx_names
from trtq.layers.dtypes import dtype
from trtq.layers.generations import rename_generations
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

BUILD_HEADER = "[INFO] trtq build: "
SYNCHRONIZATION = ("signal", "wait", "signal_and_wait")
# Inputs of cache-control kernels: no activation, though by bytes they would dominate.
CACHE_PREFIXES = ("l2_cache_policy_inputs_", "l2_cache_management_")
_START = re.compile(r"^(?:\[[^\n]*\] )?Layers:\n", re.MULTILINE)
_END = "\n\nI/O Tensors:\n"
_ROW_KEYS = (
    "Name: ", ", LayerType: ", ", Inputs: [", "], Constants: [", "], Outputs: [", "], TacticName: ", ", StreamId: ",
    ", Metadata:",
)  # fmt: skip
_TENSOR_KEYS = ("{ Name: ", ", Dimensions: [", "], Strides: [", "], StrideOrder: [", "], Datatype: ", ", Format: ")
_TENSOR_END = " }"
_CONSTANT_DIMS = re.compile(r", Dimensions: \[(\d{1,9}(?:,\d{1,9})*)\], Strides: ")


@dataclass(frozen=True)
class BuildRecord:
    """What a log tells about its own build: the builder and its version, the SMs, the ONNX file's SHA-256."""

    source: str = "TensorRT-RTX"
    targets: tuple[str, ...] = ()
    onnx_sha256: str | None = None

    def header(self) -> str:
        """Return the log line that `build_record` reads back."""
        return BUILD_HEADER + json.dumps(self.__dict__, sort_keys=True)


def holds_table(text: str) -> bool:
    """Tell whether the text of a log, or of the message alone, holds a layer table."""
    return _START.search(text) is not None


def read_graph(text: str, where: str) -> LayerGraph:
    """Return the compiled layer graph of a builder's log, or of the table alone; raises `ModelError`."""
    layers, _ = rename_generations(read_table(text, where))
    record = build_record(text)
    return LayerGraph(
        origin="compiled",
        source=record.source,
        layers=layers,
        signals=signals(layers, "compiled"),
        targets=record.targets,
        onnx_sha256=record.onnx_sha256,
    )


def read_table(text: str, where: str) -> tuple[Layer, ...]:
    """Return the table's layers in execution order, without the rows that only synchronize streams.

    `where` names the text in messages. Raises `ModelError` when there is no table, or when it is cut or malformed.
    """
    start = _START.search(text)
    if start is None:
        raise ModelError(
            f"{where}: holds no TensorRT-RTX layer table; build with detailed profiling verbosity and a verbose log"
        )
    end = text.find(_END, start.end())
    if end < 0:
        raise ModelError(f"{where}: the TensorRT-RTX layer table is cut short; keep the builder's whole log")
    rows = [_layer(row, where) for row in _rows(text[start.end() : end], where)]
    layers = tuple(layer for layer in rows if layer.kind not in SYNCHRONIZATION)
    if not layers:
        raise ModelError(f"{where}: the TensorRT-RTX layer table is empty; build the engine again")
    return layers


def build_record(text: str) -> BuildRecord:
    """Return what the log's first line tells about the build, where trtq wrote the log."""
    first = text.partition("\n")[0]
    if not first.startswith(BUILD_HEADER):
        return BuildRecord()
    try:
        values: dict[str, Any] = json.loads(first[len(BUILD_HEADER) :])
        return BuildRecord(str(values["source"]), tuple(map(str, values["targets"])), values["onnx_sha256"])
    except (ValueError, KeyError, TypeError):
        return BuildRecord()


def _rows(body: str, where: str) -> Iterator[str]:
    row = ""
    for line in body.split("\n"):
        if line.startswith(_ROW_KEYS[0]):
            if row:
                yield row
            row = line
        elif row:
            row += "\n" + line
        elif line:
            raise ModelError(
                f"{where}: the layer table starts with {line[:60]!r}, not with 'Name: '; is it TensorRT-RTX 1.7's?"
            )
    if row:
        yield row


def _layer(row: str, where: str) -> Layer:
    name, kind, inputs, constants, outputs, tactic, _stream, metadata = cut(row, _ROW_KEYS, where)
    return Layer(
        name=name,
        kind=kind,
        inputs=_tensors(inputs, where),
        outputs=_tensors(outputs, where),
        onnx_nodes=onnx_names.split(metadata.rstrip()),
        tactic=tactic,
        weight_count=_weight_count(constants),
    )


def _weight_count(constants: str) -> int | None:
    """Return how many numbers the largest constant holds; a row's others are biases, scales and zeros."""
    counts = (math.prod(map(int, dims.split(","))) for dims in _CONSTANT_DIMS.findall(constants))
    return max(counts, default=None)


def _tensors(text: str, where: str) -> tuple[Tensor, ...]:
    tensors = (_tensor(entry, where) for entry in entries(text, _TENSOR_KEYS[0], where))
    return tuple(tensor for tensor in tensors if not tensor.name.startswith(CACHE_PREFIXES))


def entries(text: str, start: str, where: str) -> list[str]:
    """Return the tensors' entries in a row's list, each of which starts with `start`; raises `ModelError`."""
    found, position = [], text.find(start)
    while position >= 0:
        following = text.find("}, " + start, position)
        found.append(text[position:] if following < 0 else text[position : following + 1])
        position = -1 if following < 0 else following + len("}, ")
    if not found and text.strip():
        raise ModelError(f"{where}: cannot read the tensors {text[:60]!r} of the layer table; keep the whole log")
    return found


def _tensor(entry: str, where: str) -> Tensor:
    name, dims, _strides, _order, datatype, layout = cut(entry, _TENSOR_KEYS, where)
    if not layout.endswith(_TENSOR_END):
        raise ModelError(f"{where}: tensor {name!r} of the layer table is cut; keep the builder's whole log")
    return Tensor(name, numbers(dims, name, where), dtype(datatype), layout.removesuffix(_TENSOR_END).strip())


def numbers(dims: str, name: str, where: str) -> tuple[int, ...]:
    """Return the dimensions of tensor `name` as a row has them; raises `ModelError`."""
    try:
        return tuple(int(number) for number in dims.split(",") if number.strip())
    except ValueError as error:
        raise ModelError(f"{where}: tensor {name!r} of the layer table has dimensions [{dims}]") from error


def cut(text: str, keys: tuple[str, ...], where: str) -> list[str]:
    """Return what stands behind each key, in the order in which they come; raises `ModelError` where one is missing."""
    spans, position = [], 0
    for key in keys:
        found = text.find(key, position)
        if found < 0:
            wanted = key.strip(" ,:[]{")
            raise ModelError(
                f"{where}: a row of the layer table has no {wanted} ({text[:60]!r}); "
                "it is cut or not TensorRT-RTX 1.7's"
            )
        position = found + len(key)
        spans.append((found, position))
    ends = [start for start, _ in spans[1:]] + [len(text)]
    return [text[after:end] for (_, after), end in zip(spans, ends, strict=True)]
