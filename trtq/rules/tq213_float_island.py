"""TQ213 float-island: a float stretch lies between int8 kernels and costs conversions at its ends.

## What it does

Finds operators that run in float although what they read comes from int8 kernels and what they write is quantized
again: a gate's Mul, a Softmax, a LayerNormalization, a linear Resize, a layer that was left out of quantization.
Operators that follow each other, or that read the same tensor in float, are one stretch and one finding. What fuses
into a convolution (batch normalization, activation, residual sum) and what only moves values is not float for its own
sake; float average pools and half-quantized layers have rules of their own. Pointwise arithmetic and averages that have
pairs on every input and behind have what TensorRT's recommendations ask for, and are left alone.

## Why it matters

The kernel in front writes float, four bytes or two a value instead of one, and each quantizer behind is a kernel of its
own, as is each DequantizeLinear in front. The finding lists those conversions. A gate whose Mul reads both operands
quantized moves 15 % fewer bytes of activations in TensorRT-RTX 1.7 (4.71 to 3.99 MB).

## Fix

None by trtq: whether an operator has an int8 kernel, and whether its numbers stand it, differs from case to case. Add
Q/DQ pairs on all inputs of the stretch and measure; or, where it must stay float and is short of work around it, leave
the layers next to it float as well.

## Fix safety

Needs review: nothing is changed.

Sources: TensorRT developer guide, "Explicit quantization" ("try quantizing layers that do not commute with Q/DQ", "add
back one at a time"); NVIDIA tensorflow-quantization, which quantizes the Mul of squeeze-and-excitation blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import Classes, joint_of
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.outlook import ACTIVATIONS, Outlook, data_of, dequantized, is_average_pool, outlook_of
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ213", "float-island"
INT8_BETWEEN_PAIRS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "ReduceMean", "AveragePool", "GlobalAveragePool"}
)
SHAPES = ("Shape", "Size")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float t_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    t = Conv (x_dq, w)
    t_active = Relu (t)
    t_q = QuantizeLinear (t_active, t_scale, zero)
    t_dq = DequantizeLinear (t_q, t_scale, zero)
    y = Conv (t_dq, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float t_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    t = Conv (x_dq, w)
    shares = Softmax <axis = 1> (t)
    t_q = QuantizeLinear (shares, t_scale, zero)
    t_dq = DequantizeLinear (t_q, t_scale, zero)
    y = Conv (t_dq, w)
}
"""


@dataclass
class Island:
    """A float stretch: its operators, the tensors that it reads and writes at its ends, and their conversions."""

    operators: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    conversions: list[str] = field(default_factory=list)
    enclosed: bool = True  # whether pairs stand on all that it reads


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each float stretch between int8 kernels."""
    for one in _Stretches(model).islands():
        sources, results, conversions = map(_once, (one.sources, one.results, one.conversions))
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=_once([*sources, *results]),
            removes=conversions,
            message=f"from {listed(sources)} to {listed(results)}: {', '.join(_once(one.operators))} in float between"
            f" int8 kernels, at the cost of {len(conversions)} conversion{'s' if len(conversions) > 1 else ''}"
            f" ({listed(conversions)}); quantize its inputs too, or leave its neighbours float, and measure",
            safety="needs review",
            fixable=False,
        )


def _once(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class _Stretches:
    """The float operators of a graph, joined where one reads another's result or both read one tensor."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.outlook = outlook_of(model)
        self.sets = Classes()
        self.members: list[ir.Node] = []
        self._inside: set[int] = set()  # tensors that the stretches write
        self._from_int8: set[int] = set()
        self._shapes: set[int] = set()  # numbers that are computed from shapes alone
        for node in reading.nodes(model):
            self._visit(node)

    def islands(self) -> list[Island]:
        """Return the stretches that begin at int8 kernels and end in quantizers, or in what TQ201 will quantize."""
        found: dict[int, Island] = {}
        for node in self.members:
            one = found.setdefault(self.sets.find(node.outputs[0]), Island())
            if joint_of(node) is None:
                one.operators.append(node.op_type)
            for value in data_of(node):
                one.enclosed = one.enclosed and (dequantized(value) or id(value) in self._inside)
                if id(value) in self._from_int8:
                    one.sources.append(reading.name(value))
                    one.conversions.extend(self.outlook.conversions_in_front(value))
            for value in node.outputs:
                behind = self.outlook.conversions_behind(value)
                if behind or self.outlook.wants(value):
                    one.results.append(reading.name(value))
                    one.conversions.extend(behind)
        ended = (one for one in found.values() if one.operators and one.sources and one.results)
        return [one for one in ended if one.conversions and not _has_its_pairs(one)]

    def _visit(self, node: ir.Node) -> None:
        if node.op_type in SHAPES or all(id(value) in self._shapes for value in data_of(node)):
            self._shapes.update(map(id, node.outputs))
        elif self.outlook.in_int8_kernel(node):
            self._from_int8.update(map(id, node.outputs))
        elif joint_of(node) is not None:
            self._visit_joint(node)
        elif reading.is_dequantize(node) and reading.is_activation(node):
            self._from_int8.add(id(node.outputs[0]))
        elif _is_float_for_its_own_sake(node, self.outlook):
            self._join(node)

    def _visit_joint(self, node: ir.Node) -> None:
        float_side = any(id(value) in self._inside for value in data_of(node))
        if float_side and not all(map(self.outlook.takes, node.outputs)):
            self._join(node)
        elif any(id(value) in self._from_int8 for value in data_of(node)):
            self._from_int8.update(map(id, node.outputs))

    def _join(self, node: ir.Node) -> None:
        self.members.append(node)
        for value in data_of(node):
            if id(value) in self._inside or id(value) in self._from_int8:
                self.sets.union(node.outputs[0], value)
        for output in node.outputs:
            self.sets.union(node.outputs[0], output)
            self._inside.add(id(output))


def _has_its_pairs(one: Island) -> bool:
    return one.enclosed and INT8_BETWEEN_PAIRS.issuperset(one.operators)


def _is_float_for_its_own_sake(node: ir.Node, outlook: Outlook) -> bool:
    """Tell whether `node` computes in float and no other rule says why."""
    if reading.is_quantize(node) or reading.is_dequantize(node) or node.op_type == "BatchNormalization":
        return False
    if node.op_type in reading.WEIGHTED:
        return not any(map(dequantized, node.inputs[:2]))
    if node.op_type in ACTIVATIONS:
        return not dequantized(node.inputs[0])
    if is_average_pool(node) and node.inputs[0] is not None:
        return not (dequantized(node.inputs[0]) or outlook.mends_pool(node))
    return True


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
