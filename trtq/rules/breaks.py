"""Pairs that stand inside what TensorRT would run as one kernel: between a convolution or sum and what fuses to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.remembering import remembered
from trtq.rules import readers
from trtq.rules.outlook import broadcasts, dequantized, fuses

KERNELS = (*reading.WEIGHTED, "Add", "BatchNormalization")


@dataclass(frozen=True)
class Break:
    """A kernel's result, what follows it (activation, BatchNormalization or residual Add), and the pairs between.

    The pairs are given by their quantizers.
    """

    value: ir.Value
    operator: ir.Node
    result: ir.Value
    pairs: tuple[ir.Node, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that the pairs stand on."""
        return tuple(dict.fromkeys(reading.name(quantizer.inputs[0]) for quantizer in self.pairs))


@remembered
def find(model: ir.Model) -> tuple[Break, ...]:
    """Return such places in graph order; linear in the graph's size."""
    found = tuple(_found(model))
    # Both sides of a sum may be convolutions: the pair on the other one is the residual's.
    last = {one.operator: one for one in found}
    return tuple(one for one in found if one.operator.op_type != "Add" or last[one.operator] is one)


def _found(model: ir.Model) -> Iterator[Break]:
    for node in reading.nodes(model):
        if node.op_type not in KERNELS or node.domain not in ("", "ai.onnx"):
            continue
        value = node.outputs[0]
        activation = readers.activation_behind(value)
        if activation is not None:
            operator, result, pairs = activation.operator, activation.result, activation.pairs
        else:
            joined = _normalization_behind(node) or _sum_behind(node)
            if joined is None:
                continue
            operator, pairs = joined
            result = operator.outputs[0]
        if pairs and all(map(_can_go, pairs)):
            yield Break(value, operator, result, pairs)


def _normalization_behind(node: ir.Node) -> tuple[ir.Node, tuple[ir.Node, ...]] | None:
    """Return the BatchNormalization that alone reads a Conv's result, and the pairs between, or None."""
    if node.op_type not in reading.WEIGHTED:
        return None
    found = readers.behind(node.outputs[0])
    if found is None or [one.op_type for one in found.operators] != ["BatchNormalization"]:
        return None
    return found.operators[0], found.pairs


def _sum_behind(node: ir.Node) -> tuple[ir.Node, tuple[ir.Node, ...]] | None:
    """Return the Add that alone reads an int8 Conv's result and could fuse into it, and the pair between, or None.

    TensorRT fuses an Add into one convolution, whose own result must not be quantized; the other input must. Of two
    convolutions that is the later, as in NVIDIA's tensorflow-quantization.
    """
    if node.op_type != "Conv" or not all(map(dequantized, node.inputs[:2])):
        return None
    found = readers.behind(node.outputs[0])
    if found is None or len(found.pairs) != 1 or [one.op_type for one in found.operators] != ["Add"]:
        return None
    [add] = found.operators
    own = [value for value in add.inputs if _convolution_before(value) is node]
    others = [value for value in add.inputs if value is not None and value not in own]
    if len(own) != 1 or len(others) != 1 or reading.is_constant(others[0]) or fuses(others[0]):
        return None
    return None if broadcasts(node.outputs[0], others[0]) else (add, found.pairs)


def _convolution_before(value: ir.Value | None) -> ir.Node | None:
    """Return the int8 Conv whose result a pair, read by nothing else, hands to `value`, or None."""
    dequantizer = readers.dequantizer_before(value)
    quantizer = None if dequantizer is None else readers.quantizer_before(dequantizer)
    source = None if quantizer is None else reading.source(quantizer.inputs[0])
    node = None if source is None else source.producer()
    if source is None or node is None or node.op_type != "Conv" or not all(map(dequantized, node.inputs[:2])):
        return None
    found = readers.behind(source)
    return node if found is not None and len(found.pairs) == len(found.operators) == 1 else None


def _can_go(quantizer: ir.Node) -> bool:
    """Tell whether taking the pair away keeps every type: what goes in has the type of what comes out."""
    values = [quantizer.inputs[0], *(node.outputs[0] for node in readers.dequantizers_of(quantizer))]
    return len({value.dtype for value in values if value is not None} - {None}) < 2
