"""Who reads a tensor: behind Identity, and behind the Q/DQ pairs that stand on it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trtq.qdq import reading

# What fuses into the operator that writes its input, alone or as the gate of a Mul.
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Softplus",
     "Mish", "Gelu", "ThresholdedRelu"}
)  # fmt: skip
GATES = frozenset({"Sigmoid", "HardSigmoid", "Softplus", "Tanh"})
GATE_LENGTH_LIMIT = 2  # the longest gate is Mish's: Softplus, Tanh


@dataclass(frozen=True)
class Behind:
    """The pairs that stand on a tensor, each by its quantizer, and the operators that read it, through pairs or not."""

    pairs: tuple[ir.Node, ...]
    operators: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Activation:
    """An activation behind a tensor, SiLU and the like included: what it writes, and the pairs on the way to there."""

    operator: ir.Node
    result: ir.Value
    pairs: tuple[ir.Node, ...]


def of(value: ir.Value) -> tuple[list[ir.Node], bool]:
    """Return the nodes that read `value`, through Identity, each once, and whether it is an output of the network."""
    found: dict[ir.Node, None] = {}
    reached, given_out = [value], False
    while reached:
        tensor = reached.pop()
        given_out = given_out or tensor.is_graph_output()
        for node in tensor.consumers():
            if node.op_type == "Identity":
                reached.extend(node.outputs)
            else:
                found[node] = None
    return list(found), given_out


def behind(value: ir.Value) -> Behind | None:
    """Look through the pairs on `value`; None where an output, a subgraph or an int8 operator reads it on the way."""
    pairs: dict[ir.Node, None] = {}
    operators: dict[ir.Node, None] = {}
    reached = [value]
    while reached:
        tensor = reached.pop()
        nodes, given_out = of(tensor)
        if given_out:
            return None
        for node in nodes:
            if node.graph is not tensor.graph:
                return None
            if not reading.is_quantize(node):
                operators[node] = None
                continue
            dequantizers = dequantizers_of(node)
            if not dequantizers:
                return None
            pairs[node] = None
            reached.extend(one.outputs[0] for one in dequantizers)
    return Behind(tuple(pairs), tuple(operators))


def dequantizers_of(quantizer: ir.Node) -> list[ir.Node]:
    """Return the DequantizeLinears behind `quantizer`; none where anything else reads its integers too."""
    nodes, given_out = of(quantizer.outputs[0])
    return [] if given_out or not all(map(reading.is_dequantize, nodes)) else nodes


def dequantizer_before(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that writes `value`, through Identity, or None."""
    source = reading.source(value)
    node = None if source is None else source.producer()
    return node if reading.is_dequantize(node) else None


def quantizer_before(dequantizer: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear in front of a DequantizeLinear, or None."""
    source = reading.source(dequantizer.inputs[0])
    node = None if source is None else source.producer()
    return node if reading.is_quantize(node) else None


def activation_behind(value: ir.Value) -> Activation | None:
    """Return the activation that alone reads `value`, where pairs may stand between, or None."""
    first = behind(value)
    if first is None:
        return None
    if len(first.operators) == 1:
        [operator] = first.operators
        return Activation(operator, operator.outputs[0], first.pairs) if operator.op_type in ACTIVATIONS else None
    if len(first.operators) != 2:
        return None
    for gate, product in (first.operators, first.operators[::-1]):
        pairs = _through_gate(gate, product)
        if pairs is not None:
            return Activation(product, product.outputs[0], (*first.pairs, *pairs))
    return None


def _through_gate(gate: ir.Node, product: ir.Node) -> tuple[ir.Node, ...] | None:
    """Return the pairs between a gate's operators and its Mul; None where that is not what they are."""
    pairs: list[ir.Node] = []
    for _ in range(GATE_LENGTH_LIMIT):
        if gate.op_type not in GATES:
            return None
        found = behind(gate.outputs[0])
        if found is None or len(found.operators) != 1:
            return None
        pairs.extend(found.pairs)
        [gate] = found.operators
        if gate is product:
            return tuple(pairs) if product.op_type == "Mul" else None
    return None
