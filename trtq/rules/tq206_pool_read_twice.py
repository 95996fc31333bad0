"""TQ206 pool-read-twice: a max pool is read in int8 by one consumer and in float by another.

## What it does

Finds MaxPools whose result a quantizer reads (directly, or through Concat, further pools, Reshape and the like) and
something else reads in float: a float residual, an operator without int8 kernel, a layer that is left float. Pools of
one scale group, a pool chain for instance, are one finding. A pool whose result is an output of the network is left
alone, since it is needed in float.

## Why it matters

The quantizer moves in front of the pool for its int8 consumer, and the pool is kept for the float one: TensorRT-RTX
compiles it twice, and every pool before it in a chain as well (a chain of three becomes six). Classic TensorRT keeps
the pool in float and the quantizer as a kernel of its own. With the pair, the stem of a ResNet18 at 224 px compiles to
one pool instead of two, and the network moves 29.4 instead of 37.2 MB of activations.

## Fix

One Q/DQ pair on the tensor that is read in float, with the scale of the pool's group, for all its float consumers. In a
chain the pairs stand at the ends, where float begins: a pair between two pools, on a pool's input alone, would leave
the pools behind it in float.

## Fix safety

Numeric: the float consumers now read rounded values, in the steps that the int8 one uses already. Where a consumer has
no int8 kernel, a DequantizeLinear in front of it takes the place of the QuantizeLinear behind the pool.

Sources: layer tables of TensorRT-RTX 1.7.1 for the stem of ResNet18 and for chains of three pools; TensorRT developer
guide, "Explicit quantization" (a quantizer moves only when every consumer is that quantizer).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import Joint, classes_of, is_member, joint_of
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.outlook import outlook_of
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ206", "pool-read-twice"
POOLS = ("MaxPool", "GlobalMaxPool")
SHAPE_READERS = ("Shape", "Size")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,2,2] y, float[1,2,2,2] z)
<float scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    w = DequantizeLinear (w_q, w_scale, zero)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    pooled_q = QuantizeLinear (pooled, scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, scale, zero)
    y = Conv (pooled_dq, w)
    z = Sigmoid (pooled_dq)
}
"""
BAD = GOOD.replace("Sigmoid (pooled_dq)", "Sigmoid (pooled)")


@dataclass
class Doubled:
    """Pools of one scale group that run twice: what they write, what is read in float, and the group's quantizer."""

    quantizer: ir.Node
    pools: list[str] = field(default_factory=list)
    ends: dict[ir.Value, list[ir.Node]] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that are read in float."""
        return tuple(map(reading.name, self.ends))


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each scale group with max pools that are read in int8 and in float."""
    found = _doubled(model)
    outlook = outlook_of(model) if found else None
    for one in found:
        assert outlook is not None
        scale = reading.scalar_scale(one.quantizer)
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=one.tensors,
            removes=tuple(dict.fromkeys(name for value in one.ends for name in outlook.freed(value))),
            message=f"tensor{'s' if len(one.ends) > 1 else ''} {listed(one.tensors)}: read in float, while max pools"
            f" (of {listed(one.pools)}) are read in int8 too and so run twice; the fix lets the float consumers read"
            f" through a pair with the scale of the int8 ones ({scale:.4g})",
            safety="numeric",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put a pair between each finding's tensors and their float consumers, in place; return how many were mended."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = [one for one in _doubled(model) if wanted.intersection(one.tensors)]
    taken = editing.names(model)
    for one in found:
        for tensor, readers in one.ends.items():
            prefix = f"{reading.name(tensor)}_pool"
            parameters = pairs.parameters_of(model, one.quantizer, prefix, taken)
            quantize = pairs.insert(model, readers[0], tensor, parameters, taken, prefix=prefix)
            (dequantize,) = quantize.outputs[0].consumers()
            for reader in readers[1:]:
                _read_instead(reader, tensor, dequantize.outputs[0])
    return len(found)


def _read_instead(reader: ir.Node, old: ir.Value, new: ir.Value) -> None:
    for index, value in enumerate(reader.inputs):
        if value is old:
            reader.replace_input_with(index, new)


def _doubled(model: ir.Model) -> list[Doubled]:
    """Return what runs twice, in graph order."""
    readers = _Readers(model)
    starts = [
        node.outputs[0] for node in reading.nodes(model) if node.op_type in POOLS and readers.both(node.outputs[0])
    ]
    if not starts:
        return []
    classes = classes_of(model)
    widest: dict[int, ir.Node] = {}
    for node in filter(is_member, reading.nodes(model)):
        key = classes.find(node.inputs[0])
        widest[key] = max(widest.get(key, node), node, key=lambda one: reading.scalar_scale(one) or 0.0)
    found: dict[int, Doubled] = {}
    seen: set[int] = set()
    for start in starts:
        key = classes.find(start)
        if key in widest:
            found.setdefault(key, Doubled(widest[key])).pools.append(reading.name(start))
            for tensor in readers.ends(start, seen):
                found[key].ends[tensor] = readers.float_nodes(tensor)
    return [one for one in found.values() if all(_can_be_paired(model, *end) for end in one.ends.items())]


def _can_be_paired(model: ir.Model, tensor: ir.Value, readers: Sequence[ir.Node]) -> bool:
    return not tensor.is_graph_output() and all(node.graph is model.graph for node in readers)


class _Readers:
    """Who reads each tensor in int8 and who in float, seen through the operators that a quantizer can cross."""

    def __init__(self, model: ir.Model) -> None:
        self._int8: set[int] = set()
        self._float: set[int] = set()
        self._order = {node: index for index, node in enumerate(reading.nodes(model))}
        for node in reversed(reading.nodes(model)):
            for value in node.outputs:
                self._look_after(value)

    def both(self, value: ir.Value) -> bool:
        """Tell whether `value` is read in int8 and in float."""
        return id(value) in self._int8 and id(value) in self._float

    def float_nodes(self, value: ir.Value) -> list[ir.Node]:
        """Return the nodes that read `value` itself in float, in graph order."""
        nodes = [node for node in dict.fromkeys(value.consumers()) if self._ends_int8(node)]
        return sorted(nodes, key=lambda node: self._order.get(node, 0))

    def ends(self, start: ir.Value, seen: set[int]) -> Iterator[ir.Value]:
        """Yield the tensors from `start` on that something reads in float, each once over all calls."""
        reached = [] if id(start) in seen else [start]
        seen.add(id(start))
        while reached:
            value = reached.pop()
            if value.is_graph_output() or any(map(self._ends_int8, value.consumers())):
                yield value
            for node in value.consumers():
                if self._crossed(node) is not None:
                    new = [one for one in node.outputs if id(one) in self._float and id(one) not in seen]
                    reached.extend(new)
                    seen.update(map(id, new))

    def _look_after(self, value: ir.Value) -> None:
        for node in value.consumers():
            if is_member(node) or (joint_of(node) is not None and self._any(node, self._int8)):
                self._int8.add(id(value))
            if self._ends_int8(node) or (self._crossed(node) is not None and self._any(node, self._float)):
                self._float.add(id(value))
        if value.is_graph_output():
            self._float.add(id(value))

    def _crossed(self, node: ir.Node) -> Joint | None:
        """Return the joint through which int8 goes on: a Concat only where a quantizer follows it."""
        joint = joint_of(node)
        return joint if joint is not None and (not joint.all_inputs or self._any(node, self._int8)) else None

    def _ends_int8(self, node: ir.Node) -> bool:
        takes = reading.is_quantize(node) or self._crossed(node) is not None or node.op_type in SHAPE_READERS
        return not takes

    def _any(self, node: ir.Node, values: set[int]) -> bool:
        return any(id(output) in values for output in node.outputs)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
