"""What could run in int8 once float residuals and float pools are mended: what TQ201, TQ206 and TQ208 look ahead with.

A conversion goes only when everything that reads a tensor takes int8 *and* the kernel that writes it can write int8, so
one finding depends on others further down and further up. Each walk here is linear in the graph's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import joint_of
from trtq.qdq.remembering import remembered

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "HardSwish", "Sigmoid", "Tanh", "Dropout", "Identity")
AVERAGE_POOLS = ("AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class Sum:
    """A Conv+Add that TensorRT fuses: its residual input, and its result after the activation behind it."""

    add: ir.Node
    residual: ir.Value
    result: ir.Value


class Outlook:
    """A graph as it would run after TQ201 and TQ208: which tensors could be int8, and which conversions that saves."""

    def __init__(self, model: ir.Model) -> None:
        self.sums: dict[ir.Node, Sum] = {}
        self._order: dict[ir.Node, int] = {}
        self._takes: set[int] = set()
        self._wants: set[int] = set()
        self._kernels: set[int] = set()
        self._open: set[int] = set()
        self._compute: set[int] = set()
        self._int8: set[int] = set()
        self._freed: dict[int, tuple[str, ...]] = {}
        self._float_residuals: set[int] = set()
        for order, node in enumerate(reading.nodes(model)):
            self._order[node] = order
            found = _sum(node)
            if found is not None:
                self.sums[node] = found
                if not dequantized(found.residual):
                    self._float_residuals.add(id(found.residual))
        for node in reversed(reading.nodes(model)):
            for output in node.outputs:
                self._look_after(output)
        for node in reading.nodes(model):
            self._look_before(node)

    def wants(self, value: ir.Value) -> bool:
        """Tell whether a quantizer reads `value`, or will when what stands before it is mended."""
        return id(value) in self._wants

    def takes(self, value: ir.Value) -> bool:
        """Tell whether all that reads `value` takes int8, or will."""
        return id(value) in self._takes

    def int8(self, value: ir.Value) -> bool:
        """Tell whether `value` would be int8: its kernel can write it and all its readers take it."""
        return id(value) in self._int8

    def freed(self, value: ir.Value) -> tuple[str, ...]:
        """Return the conversions that go when `value`, float until now, becomes int8.

        Those are the quantizers that read it, and the residual that its own Conv+Add had to dequantize. Equal
        quantizers of one tensor are one conversion, named by the first.
        """
        if id(value) not in self._freed:
            names = dict.fromkeys((*self._read_by(value), *self._undone(value))) if self.int8(value) else ()
            self._freed[id(value)] = tuple(names)
        return self._freed[id(value)]

    def in_int8_kernel(self, node: ir.Node) -> bool:
        """Tell whether `node` is an int8 convolution or matrix product, fuses into one, or has such a kernel itself."""
        return node in self.sums or bool(node.outputs and id(node.outputs[0]) in self._compute)

    def mends_pool(self, node: ir.Node) -> bool:
        """Tell whether an average pool that reads float would run in int8 with a pair on its input."""
        source, result = node.inputs[0], node.outputs[0]
        return source is not None and self.int8(source) and self.takes(result) and self.wants(result)

    def conversions_behind(self, value: ir.Value) -> tuple[str, ...]:
        """Return the quantizers that read `value` or end up on it; equal ones of a tensor are one, the first."""
        return tuple(self._read_by(value))

    def conversions_in_front(self, value: ir.Value) -> tuple[str, ...]:
        """Return the conversions that a float reader of `value` costs: quantizers beside it, or its dequantization."""
        source = reading.source(value)
        node = None if source is None else source.producer()
        if node is not None and reading.is_dequantize(node):
            return tuple(self._quantizer_before(node))
        return tuple(self._conversions(value))

    def _look_after(self, value: ir.Value) -> None:
        readers = set(value.consumers())
        if not value.is_graph_output() and all(self._takes_int8(node, value) for node in readers):
            self._takes.add(id(value))
        for node in readers:
            pooled = is_average_pool(node) and self.takes(value)
            if reading.is_quantize(node) or (pooled and self.wants(node.outputs[0])):
                self._wants.add(id(value))
            elif node in self.sums:
                if self.sums[node].residual is value and self.wants(self.sums[node].result):
                    self._wants.add(id(value))
            elif joint_of(node) is not None and any(map(self.wants, node.outputs)):
                self._wants.add(id(value))

    def _takes_int8(self, node: ir.Node, value: ir.Value) -> bool:
        if reading.is_quantize(node):
            return reading.scalar_scale(node) is not None
        if node in self.sums:
            result = self.sums[node].result
            return self.sums[node].residual is value and self.wants(result) and self.takes(result)
        if is_average_pool(node):
            return self.wants(node.outputs[0]) and self.takes(node.outputs[0])
        return joint_of(node) is not None and all(map(self.takes, node.outputs))

    def _look_before(self, node: ir.Node) -> None:
        kernel, still_open = self._kernel(node)
        for output in node.outputs:
            if kernel:
                self._kernels.add(id(output))
            if still_open:
                self._open.add(id(output))
            if kernel and self.takes(output):
                self._int8.add(id(output))
            if still_open or (kernel and joint_of(node) is None):
                self._compute.add(id(output))

    def _kernel(self, node: ir.Node) -> tuple[bool, bool]:
        """Tell whether the kernel that `node` ends can write int8, and whether it takes an activation in."""
        data = data_of(node)
        if node.op_type in reading.WEIGHTED:
            int8 = len(node.inputs) > 1 and all(map(dequantized, node.inputs[:2]))
            return int8, int8
        if node in self.sums:
            int8 = dequantized(self.sums[node].residual) or self.wants(self.sums[node].result)
            return int8, int8
        if node.op_type == "Add" and len(data) == 2:
            return all(map(dequantized, data)), False
        absorbed = data[0] if node.op_type == "Add" and len(data) == 1 else before(node)
        if absorbed is not None and id(absorbed) in self._open and _is_alone(node, absorbed):
            return id(absorbed) in self._kernels, True
        if is_average_pool(node) or joint_of(node) is not None:
            return bool(data) and all(dequantized(value) or self.int8(value) for value in data), False
        return False, False

    def _read_by(self, value: ir.Value) -> Iterator[str]:
        """Yield the quantizers that end up on `value`; those behind another residual are freed by that one."""
        reached, seen = [value], {id(value)}
        while reached:
            tensor = reached.pop()
            yield from self._conversions(tensor)
            for node in tensor.consumers():
                if joint_of(node) is not None:
                    new = [one for one in node.outputs if id(one) not in seen and id(one) not in self._float_residuals]
                    reached.extend(new)
                    seen.update(map(id, new))

    def _conversions(self, tensor: ir.Value) -> Iterable[str]:
        """Return the first of each set of equal quantizers that read `tensor`."""
        quantizers = (node for node in tensor.consumers() if reading.is_quantize(node))
        first: dict[float | None, str] = {}
        for node in sorted(quantizers, key=self._order.__getitem__):
            first.setdefault(reading.scalar_scale(node), reading.name(node.outputs[0]))
        return first.values()

    def _undone(self, value: ir.Value) -> Iterator[str]:
        node = value.producer()
        while node is not None and node not in self.sums:
            absorbed = before(node) or (node.inputs[0] if node.inputs and joint_of(node) is not None else None)
            node = None if absorbed is None else absorbed.producer()
        source = None if node is None else reading.source(self.sums[node].residual)
        dequantize = None if source is None else source.producer()
        if dequantize is not None and reading.is_dequantize(dequantize):
            yield from self._quantizer_before(dequantize)

    def _quantizer_before(self, dequantize: ir.Node) -> Iterator[str]:
        """Yield the name of a pair: its quantizer, or the first equal one of the same tensor."""
        quantize = None if dequantize.inputs[0] is None else dequantize.inputs[0].producer()
        tensor = quantize.inputs[0] if quantize is not None and reading.is_quantize(quantize) else None
        if quantize is None or tensor is None:
            return
        own = reading.scalar_scale(quantize)
        equal = (one for one in tensor.consumers() if reading.is_quantize(one) and reading.scalar_scale(one) == own)
        yield reading.name(min(equal, key=self._order.__getitem__).outputs[0])


@remembered
def outlook_of(model: ir.Model) -> Outlook:
    """Return the outlook of a graph; several rules ask for the same."""
    return Outlook(model)


def data_of(node: ir.Node) -> list[ir.Value]:
    """Return the activations that `node` reads: no constants, and not the sizes by which it moves values."""
    joint = joint_of(node)
    inputs = node.inputs if joint is None or joint.all_inputs else node.inputs[:1]
    return [value for value in inputs if value is not None and not reading.is_constant(value)]


def is_average_pool(node: ir.Node) -> bool:
    """Tell whether `node` averages, which has an int8 kernel, but only between a DQ and a Q."""
    return node.op_type in AVERAGE_POOLS and node.domain in ("", "ai.onnx")


def dequantized(value: ir.Value | None) -> bool:
    """Tell whether `value` is what a DequantizeLinear wrote."""
    value = reading.source(value)
    return value is not None and reading.is_dequantize(value.producer())


def before(node: ir.Node) -> ir.Value | None:
    """Return what goes into a BatchNormalization or an activation, SiLU (a Mul with its own Sigmoid) included."""
    if node.op_type in (*ACTIVATIONS, "BatchNormalization"):
        return node.inputs[0]
    for value, other in (node.inputs, node.inputs[::-1]) if node.op_type == "Mul" else ():
        gate = None if other is None else other.producer()
        if gate is not None and gate.op_type in ("Sigmoid", "HardSigmoid") and gate.inputs[0] is value:
            return value
    return None


def activated(value: ir.Value) -> ir.Value:
    """Return `value` after the activation behind it, which fuses into the operator that writes it."""
    while True:
        after = {id(node): node for node in value.consumers() if before(node) is value}
        silu = [node for node in after.values() if node.op_type == "Mul"]
        if len(value.uses()) != len(after) or len(after) != (2 if silu else 1) or value.is_graph_output():
            return value
        value = (silu or list(after.values()))[0].outputs[0]


def _sum(node: ir.Node) -> Sum | None:
    """Return `node` as a Conv+Add; of two convolutions the first one fuses, and the other one is the residual."""
    if node.op_type != "Add":
        return None
    inputs = [value for value in node.inputs if value is not None and not reading.is_constant(value)]
    fused = next((value for value in inputs if fuses(value)), None)
    if len(inputs) != 2 or fused is None or broadcasts(*inputs):
        return None
    residual = inputs[1] if inputs[0] is fused else inputs[0]
    return Sum(node, residual, activated(node.outputs[0]))


def fuses(value: ir.Value) -> bool:
    """Tell whether `value` is an int8 Conv's result, read once on its way (through BN and activation) to here."""
    uses = 1
    while len(value.uses()) == uses and not value.is_graph_output():
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "Conv":
            return dequantized(node.inputs[0]) and dequantized(node.inputs[1])
        absorbed = before(node)
        if absorbed is None:
            return False
        value, uses = absorbed, 2 if node.op_type == "Mul" else 1
    return False


def _is_alone(node: ir.Node, absorbed: ir.Value) -> bool:
    """Tell whether `node` alone reads `absorbed`, its own Sigmoid aside, so that nothing needs it apart."""
    return len(absorbed.uses()) == (2 if node.op_type == "Mul" else 1) and not absorbed.is_graph_output()


def broadcasts(one: ir.Value, other: ir.Value) -> bool:
    """Tell whether the Add is known to broadcast over more than the batch, which keeps it from fusing."""
    if one.shape is None or other.shape is None:
        return False
    pairs = zip(one.shape[1:], other.shape[1:], strict=False)
    return len(one.shape) != len(other.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
    )
