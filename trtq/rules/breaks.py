"""Pairs that stand inside what TensorRT would run as one kernel: between a convolution or a sum and its activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.remembering import remembered
from trtq.rules import readers

KERNELS = (*reading.WEIGHTED, "Add", "BatchNormalization")


@dataclass(frozen=True)
class Break:
    """A kernel's result, what follows it (an activation or a BatchNormalization), and the pairs between, quantizers."""

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
    return tuple(_found(model))


def _found(model: ir.Model) -> Iterator[Break]:
    for node in reading.nodes(model):
        if node.op_type not in KERNELS or node.domain not in ("", "ai.onnx"):
            continue
        value = node.outputs[0]
        activation = readers.activation_behind(value)
        if activation is not None:
            operator, result, pairs = activation.operator, activation.result, activation.pairs
        else:
            normalization = _normalization_behind(node)
            if normalization is None:
                continue
            operator, pairs = normalization
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


def _can_go(quantizer: ir.Node) -> bool:
    """Tell whether taking the pair away keeps every type: what goes in has the type of what comes out."""
    values = [quantizer.inputs[0], *(node.outputs[0] for node in readers.dequantizers_of(quantizer))]
    return len({value.dtype for value in values if value is not None} - {None}) < 2
