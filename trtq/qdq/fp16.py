"""Mixed precision in the file: the float part of a network in FP16, its Q/DQ pairs and their scales in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trtq.errors import ConfigError
from trtq.qdq import editing, reading
from trtq.qdq import model as onnx_file
from trtq.qdq.float_types import FLOAT, HALF, HALF_MAX, Slots, choose
from trtq.qdq.per_tensor import WeightScales, to_per_tensor
from trtq.qdq.remembering import without_collection

UNRANGED = ("Constant", reading.DEQUANTIZE)  # their ranges are in the file
TAGS = {HALF: "fp16", FLOAT: "fp32"}


@dataclass(frozen=True)
class Kept:
    """A float node that stays float32: its operator and first output, its name, and why."""

    node: str
    name: str
    reason: str


@dataclass(frozen=True)
class Casting:
    """What the cast of a network did.

    half: nodes that compute in FP16 now. kept: float nodes that do not. casts: Cast nodes in the result. weights: what
    became of per-channel weight scales, where that was asked for.
    """

    half: int
    kept: tuple[Kept, ...]
    casts: int
    weights: WeightScales | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return asdict(self)


def to_fp16(
    model: ir.Model,
    *,
    keep: Sequence[str] = (),
    ranges: Mapping[str, float] | None = None,
    keep_io: bool = True,
    per_tensor_weights: bool = False,
) -> Casting:
    """Cast the float part of a float or Q/DQ network to FP16, in place.

    Q/DQ nodes compute in float32 with the scales that they have, casts stand outside of the pairs, and no scale is ever
    cast: TensorRT-RTX builds this form into the same kernels as FP16 scales, ONNX Runtime runs it at any opset, and a
    cast scale crashes the builder. What ONNX defines for float32 alone, what holds a constant or a range beyond FP16,
    what sums or exponentiates numbers of unknown size, and what is computed from integers stays float32.

    keep: globs over node names that stay float32. ranges: the largest magnitude of tensors by name, from calibration; a
    tensor that reaches half of FP16's largest number stays float32, as what computes it does. keep_io: inputs and
    outputs stay float32. per_tensor_weights: as `per_tensor.to_per_tensor` does, first.
    Raises `ConfigError` for a glob that matches no node.
    """
    known = dict(ranges or {})
    with without_collection():
        _prepare(model)
        weights = to_per_tensor(model, known, keep) if per_tensor_weights else None
        choice = choose(model, keep, known, keep_io=keep_io)
        _Caster(model, choice.half, keep_io=keep_io).cast()
        kept = tuple(
            Kept(reading.label(node), node.name or "", choice.reasons[id(node)])
            for node in model.graph
            if id(node) in choice.reasons
        )
        return Casting(len(choice.half), kept, sum(node.op_type == "Cast" for node in model.graph), weights)


def fp16_file(
    source: Path,
    target: Path,
    *,
    keep: Sequence[str] = (),
    ranges: Mapping[str, float] | None = None,
    keep_io: bool = True,
    per_tensor_weights: bool = False,
) -> Casting:
    """Cast the file `source` into `target`, as `to_fp16` does; same input, same bytes.

    Weights that are external data are external in `target` too, in a file of its own beside it.
    Raises what `to_fp16` raises, `ModelError` for a file that is not ONNX, `ConfigError` when `target` is `source`,
    `OutputError` when `target` cannot be written.
    """
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is the input itself; choose another output")
    model = onnx_file.load(source)
    external = onnx_file.has_external_data(model)
    casting = to_fp16(model, keep=keep, ranges=ranges, keep_io=keep_io, per_tensor_weights=per_tensor_weights)
    if external:
        onnx_file.save_external(model, target)
    else:
        onnx_file.save(model, target)
    return casting


def float_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the float32 tensors whose ranges `to_fp16` asks for: all that nodes of the main graph write.

    Finds the types that an exporter left out, in place.
    """
    _infer_types(model)
    values = [value for node in model.graph if node.op_type not in UNRANGED for value in node.outputs]
    return tuple(reading.name(value) for value in values if value.dtype == FLOAT and value.uses())


def _prepare(model: ir.Model) -> None:
    """Find the types that an exporter left out, and take away what has none: casts of float32 to float32.

    A constant that is also an input, as ONNX had it before IR version 4, is a constant alone to every TensorRT.
    """
    if any(value.is_initializer() for value in model.graph.inputs):
        passes.RemoveInitializersFromInputsPass()(model)
    _infer_types(model)
    _drop_casts_to_the_same(model)


def _infer_types(model: ir.Model) -> None:
    if any(value.dtype is None for node in model.graph for value in node.outputs if value.name):
        passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _drop_casts_to_the_same(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].dtype != _to(node):
            continue
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        if not node.outputs[0].is_graph_output():
            model.graph.remove(node, safe=True)


class _Caster:
    """Gives the chosen slots their type and puts the casts between; a tensor has at most one cast to each type."""

    def __init__(self, model: ir.Model, half: Mapping[int, Slots], *, keep_io: bool) -> None:
        self._model = model
        self._half = half
        self._keep_io = keep_io
        self._taken = editing.names(model)
        self._nodes = tuple(model.graph)
        self._twins: dict[tuple[int, ir.DataType], ir.Value] = {}  # the same numbers in the other type

    def cast(self) -> None:
        before = {id(value): value.dtype for node in self._nodes for value in (*node.inputs, *node.outputs) if value}
        self._use_casts()
        self._retype(before)
        for node in self._nodes:
            self._rewire(node, before)
        for node in self._nodes:
            self._rewire_subgraphs(node, before)
        for index, value in enumerate(self._model.graph.outputs):
            self._give_out(index, value, before)
        self._sweep()

    def _use_casts(self) -> None:
        """Take note of the casts between the two types that the network has: what they join has both types already."""
        for node in self._nodes:
            if node.op_type != "Cast" or node.inputs[0] is None or {node.inputs[0].dtype, _to(node)} != {FLOAT, HALF}:
                continue
            self._twins.setdefault((id(node.inputs[0]), _to(node)), node.outputs[0])
            self._twins.setdefault((id(node.outputs[0]), node.inputs[0].dtype), node.inputs[0])  # type: ignore[arg-type]

    def _retype(self, before: dict[int, ir.DataType | None]) -> None:
        for node in self._nodes:
            for index in self._half[id(node)].outputs if id(node) in self._half else ():
                node.outputs[index].type = ir.TensorType(HALF)
        for value in () if self._keep_io else self._model.graph.inputs:
            if value.dtype == FLOAT and not value.is_initializer():
                before[id(value)] = FLOAT
                value.type = ir.TensorType(HALF)

    def _rewire(self, node: ir.Node, before: Mapping[int, ir.DataType | None]) -> None:
        """Give each input of a node the type that the node takes: FP16 in its slots, elsewhere what it was."""
        slots = self._half[id(node)].inputs if id(node) in self._half else ()
        for index, value in enumerate(node.inputs):
            if value is None or node.op_type == "Cast":
                continue
            wanted = HALF if index in slots else before[id(value)]
            if wanted is not None and value.dtype != wanted:
                node.replace_input_with(index, self._in(value, wanted, saturates=node.op_type == "Clip"))

    def _rewire_subgraphs(self, node: ir.Node, before: Mapping[int, ir.DataType | None]) -> None:
        """Let subgraphs read what they capture as float32."""
        for value in node.outputs:
            if value.dtype == before.get(id(value)):
                continue
            for use in [one for one in value.uses() if one.node.graph is not self._model.graph]:
                use.node.replace_input_with(use.idx, self._in(value, FLOAT))

    def _give_out(self, index: int, value: ir.Value, before: Mapping[int, ir.DataType | None]) -> None:
        """Let an output of the network keep its type, or be FP16, under its own name."""
        wanted = before.get(id(value), value.dtype)
        if not self._keep_io and wanted == FLOAT:
            wanted = HALF
        if wanted is None or value.dtype == wanted or value.is_graph_input():
            return
        given = self._in(value, wanted)
        if given.is_graph_output() or given.producer() is None or given.producer().op_type != "Cast":  # type: ignore[union-attr]
            given = self._new_cast(value, wanted)
        name = value.name
        value.name = editing.unused_name(f"{name}_{TAGS[value.dtype]}", self._taken)  # type: ignore[index]
        given.name = name
        self._model.graph.outputs[index] = given

    def _in(self, value: ir.Value, dtype: ir.DataType, *, saturates: bool = False) -> ir.Value:
        """Return the value of the same numbers that has `dtype`."""
        key = id(value), dtype
        twin = self._twins.get(key)
        if twin is None or twin.dtype != dtype:
            constant = reading.is_constant(value)
            twin = self._constant(value, dtype, saturates) if constant else self._new_cast(value, dtype)
            self._twins[key] = twin
        return twin

    def _constant(self, value: ir.Value, dtype: ir.DataType, saturates: bool) -> ir.Value:
        array = reading.constant(value)
        assert array is not None
        array = np.clip(array, -HALF_MAX, HALF_MAX) if saturates else array
        name = editing.unused_name(f"{reading.name(reading.source(value))}_{TAGS[dtype]}", self._taken)
        return editing.add_initializer(self._model, name, array.astype(dtype.numpy()))

    def _new_cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = editing.unused_name(f"{reading.name(value)}_{TAGS[dtype]}", self._taken)
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        node = ir.node("Cast", [value], attributes={"to": int(dtype)}, outputs=[output])
        node.name = editing.unused_name(f"{name}_cast", self._taken)
        producer = value.producer()
        if producer is None:
            self._model.graph.insert_before(self._model.graph[0], node)
        else:
            self._model.graph.insert_after(producer, node)
        return output

    def _sweep(self) -> None:
        """Take away casts of a tensor to the type that it has, and constants and casts that nothing reads any more."""
        _drop_casts_to_the_same(self._model)
        for node in reversed(tuple(self._model.graph)):
            if node.op_type in ("Cast", "Constant", "Identity") and not _is_used(node):
                self._model.graph.remove(node, safe=True)
        for value in list(self._model.graph.initializers.values()):
            editing.drop_unused(self._model, value)


def _to(node: ir.Node) -> ir.DataType:
    return ir.DataType(node.attributes["to"].as_int())


def _is_used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs)
