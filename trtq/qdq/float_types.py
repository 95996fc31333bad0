"""Which nodes of a network compute in FP16: by ONNX's own type constraints, by ranges, and by what must stay exact."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx
import onnx_ir as ir

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.qdq import reading

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
HALF_MAX = float(np.finfo(np.float16).max)
# Calibration images are a sample: a tensor whose range is above half of what FP16 holds is not trusted to it.
RANGE_LIMIT = HALF_MAX / 2
INT8_CODES = 128
STANDARD_DOMAINS = ("", "ai.onnx")
# They move or compare numbers and so have no precision of their own: they take the type that costs no cast.
MOVES = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
# Their results are larger than what they read by a factor that no range of their inputs tells.
GROWING = frozenset({
    "CumProd", "CumSum", "Exp", "LpNormalization", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
})  # fmt: skip
TYPED_BY_HAND = ("Cast", "Constant", reading.QUANTIZE, reading.DEQUANTIZE)


@dataclass(frozen=True)
class Slots:
    """The inputs and outputs of a node that are float32 and may be FP16, by index."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Choice:
    """The slots of each node that computes in FP16, and why every other float node does not; by the nodes' identity."""

    half: dict[int, Slots] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def choose(model: ir.Model, keep: Sequence[str], ranges: Mapping[str, float], *, keep_io: bool) -> Choice:
    """Decide for each node of the main graph, whose tensors must have their types.

    keep: globs over node names that stay float32. ranges: the largest magnitude of tensors by name. keep_io: whether
    the network's own inputs and outputs stay float32.
    Raises `ConfigError` for a glob that matches no node.
    """
    nodes = tuple(model.graph)
    opset = next((model.opset_imports[one] for one in STANDARD_DOMAINS if one in model.opset_imports), 1)
    limits = _Limits(ranges, quantized_ranges(nodes))
    kept, exact = matching(nodes, keep), set[int]()
    possible, choice = dict[int, Slots](), Choice()
    for node in nodes:
        if not _holds(node, FLOAT):
            continue
        slots, reason = _slots(node, opset)
        if node.op_type != reading.DEQUANTIZE and _is_exact(node, exact):
            exact.update(id(value) for value in node.outputs)
            written_by_hand = node.op_type in TYPED_BY_HAND
            slots, reason = None, None if written_by_hand else "it is computed from integers and constants alone"
        elif slots is not None:
            reason = "it was asked for" if id(node) in kept else limits.reason(node, slots)
        if reason is None and slots is not None:
            possible[id(node)] = slots
        elif reason is not None:
            choice.reasons[id(node)] = reason
    _settle(nodes, possible, choice, keep_io=keep_io)
    return choice


def quantized_ranges(nodes: Iterable[ir.Node]) -> dict[str, float]:
    """Return the largest magnitude that each Q/DQ pair can represent, for what is quantized and what comes out."""
    ranges: dict[str, float] = {}
    for node in nodes:
        if node.op_type not in (reading.QUANTIZE, reading.DEQUANTIZE):
            continue
        scale = reading.scale(node)
        value = node.inputs[0] if reading.is_quantize(node) else node.outputs[0]
        if scale is not None and scale.size and value is not None:
            ranges[reading.name(value)] = INT8_CODES * float(np.abs(scale).max())
    return ranges


class _Limits:
    """What keeps a node from FP16 because of its numbers."""

    def __init__(self, given: Mapping[str, float], quantized: Mapping[str, float]) -> None:
        self._given = given
        self._ranges = {**quantized, **given}
        self._constants: dict[tuple[int, bool], str | None] = {}

    def reason(self, node: ir.Node, slots: Slots) -> str | None:
        outputs = [node.outputs[index] for index in slots.outputs]
        for value in (*(node.inputs[index] for index in slots.inputs), *outputs):
            assert value is not None
            constant = self._constant(value, saturates=node.op_type == "Clip")
            if constant is not None:
                return constant
            amax = self._ranges.get(reading.name(value), 0.0)
            if not amax <= RANGE_LIMIT:
                return f"'{reading.name(value)}' reaches {amax:.4g}"
        if node.op_type in GROWING and not all(reading.name(value) in self._given for value in outputs):
            return f"{node.op_type} grows, and no range of its output is known"
        return None

    def _constant(self, value: ir.Value, *, saturates: bool) -> str | None:
        key = id(value), saturates
        if key not in self._constants:
            self._constants[key] = _constant_misfit(value, saturates=saturates)
        return self._constants[key]


def _constant_misfit(value: ir.Value, *, saturates: bool) -> str | None:
    """Return why a constant cannot be FP16: too large, or, for a single number such as an epsilon, too small."""
    array = reading.constant(value) if reading.is_constant(value) else None
    if array is None or not array.size:
        return None
    largest = max(abs(float(array.max())), abs(float(array.min())))
    if np.isfinite(largest) and largest > HALF_MAX and not saturates:
        return f"constant '{reading.name(value)}' reaches {largest:.4g}"
    if array.size == 1 and largest and not float(np.float16(min(largest, HALF_MAX))):
        return f"constant '{reading.name(value)}' is {largest:.4g}, which is 0 in FP16"
    return None


def _settle(nodes: Sequence[ir.Node], possible: Mapping[int, Slots], choice: Choice, *, keep_io: bool) -> None:
    """Let every possible node compute in FP16, but those that only follow: these take the type of their neighbours."""
    only_full = _read_as_float32(nodes, possible, keep_io=keep_io)
    halves: set[int] = set()
    for node in nodes:
        slots = possible.get(id(node))
        if slots is None or (_follows(node) and _stays(node, slots, halves, only_full)):
            continue
        choice.half[id(node)] = slots
        halves.update(id(node.outputs[index]) for index in slots.outputs)


def _read_as_float32(nodes: Sequence[ir.Node], possible: Mapping[int, Slots], *, keep_io: bool) -> set[int]:
    """Return the tensors that only float32 nodes read, through nodes that follow."""
    full: set[int] = set()
    for node in reversed(nodes):
        for value in node.outputs:
            given_out = keep_io or not value.is_graph_output()
            if given_out and all(_reads_float32(use.node, possible, full) for use in value.uses()):
                full.add(id(value))
    return full


def _reads_float32(node: ir.Node, possible: Mapping[int, Slots], full: set[int]) -> bool:
    if id(node) not in possible:
        return True
    return _follows(node) and all(id(value) in full for value in node.outputs)


def _stays(node: ir.Node, slots: Slots, halves: set[int], only_full: set[int]) -> bool:
    """Tell whether a node that follows stays float32: nothing that it reads is FP16, and a cast would be for nothing.

    What comes from a DequantizeLinear stays as exact as its integers. What the network is given is cast at once, so
    that the first layer reads half the bytes, unless a quantizer is all that awaits it.
    """
    read = [node.inputs[index] for index in slots.inputs if not reading.is_constant(node.inputs[index])]
    if any(id(value) in halves for value in read):
        return False
    if not slots.outputs:
        return True
    written = any(value is not None and value.producer() is not None for value in read)
    return written or all(id(value) in only_full for value in node.outputs)


def _follows(node: ir.Node) -> bool:
    return node.op_type in MOVES or not any(value.dtype in (FLOAT, HALF) for value in node.outputs)


def _holds_subgraph(node: ir.Node) -> bool:
    return any(one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for one in node.attributes.values())


def _holds(node: ir.Node, dtype: ir.DataType) -> bool:
    return any(value is not None and value.dtype == dtype for value in (*node.inputs, *node.outputs))


def _is_exact(node: ir.Node, exact: set[int]) -> bool:
    """Tell whether the floats that a node writes come from integers and constants alone: shapes, grids, masks."""
    if not any(value.dtype == FLOAT for value in node.outputs) or _holds_subgraph(node):
        return False
    floats = [value for value in node.inputs if value is not None and value.dtype not in _INTEGRAL]
    return all(reading.is_constant(value) or id(value) in exact for value in floats)


_INTEGRAL = frozenset({
    ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8,
    ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
})  # fmt: skip


def _slots(node: ir.Node, opset: int) -> tuple[Slots | None, str | None]:
    """Return the slots of a node that may be FP16, or None and why there are none."""
    if node.op_type in TYPED_BY_HAND:
        return None, None
    if _holds_subgraph(node):
        return None, "it holds a subgraph"
    formal = _formal_types(node.op_type, opset) if node.domain in STANDARD_DOMAINS else None
    if formal is None:
        return None, "it is not one of ONNX's own operators"
    if any(value is not None and value.dtype is None for value in (*node.inputs, *node.outputs)):
        return None, "the type of its tensors is not known"
    inputs, outputs = formal
    read = {index: name for index, name in _float32(node.inputs, inputs) if _has_numbers(node.inputs[index])}
    written = dict(_float32(node.outputs, outputs))
    if not read or set(written.values()) - set(read.values()):
        return None, "ONNX defines it for float32 alone"
    return Slots(tuple(read), tuple(written)), None


def _float32(values: Sequence[ir.Value | None], formal: _Formal) -> Iterable[tuple[int, str]]:
    """Yield the index and type variable of each float32 tensor that ONNX lets be FP16."""
    for index, value in enumerate(values):
        variable = formal.at(index)
        if value is not None and value.dtype == FLOAT and variable is not None:
            yield index, variable


def _has_numbers(value: ir.Value | None) -> bool:
    """Tell apart an input that is left empty with a tensor of no elements, as Resize's regions are."""
    return value is not None and (value.shape is None or 0 not in value.shape.dims)


@dataclass(frozen=True)
class _Formal:
    """The type variable of each formal input or output that FP16 fits, None where it does not; the last may repeat."""

    variables: tuple[str | None, ...]
    repeats: bool

    def at(self, index: int) -> str | None:
        if index < len(self.variables):
            return self.variables[index]
        return self.variables[-1] if self.repeats and self.variables else None


@functools.cache
def _formal_types(op_type: str, opset: int) -> tuple[_Formal, _Formal] | None:
    """Return what ONNX's schema of an operator lets be FP16, for its inputs and its outputs."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    half = {one.type_param_str for one in schema.type_constraints if "tensor(float16)" in one.allowed_type_strs}
    inputs, outputs = (
        _Formal(
            tuple(one.type_str if one.type_str in half else None for one in formal),
            bool(formal) and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic,
        )
        for formal in (schema.inputs, schema.outputs)
    )
    return inputs, outputs


def matching(nodes: Sequence[ir.Node], globs: Sequence[str]) -> set[int]:
    """Return the nodes whose name matches a glob; raises `ConfigError` for one that matches none."""
    found: set[int] = set()
    for glob in globs:
        matched = [id(node) for node in nodes if node.name and fnmatchcase(node.name, glob)]
        if not matched:
            names = [node.name for node in nodes if node.name]
            raise ConfigError(f"'{glob}' matches the name of no node{did_you_mean(glob, names)}")
        found.update(matched)
    return found
