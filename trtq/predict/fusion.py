"""Which operators run as one kernel, and whether that kernel reads and writes int8."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trtq.predict.network import Activation, Network, Op
from trtq.qdq import reading

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus", "Mish",
     "PRelu", "Gelu", "ThresholdedRelu"}
)  # fmt: skip
# Operators with an int8 kernel of their own, used only between DQ on every input and Q on the output.
INT8_BETWEEN_CONVERTERS = frozenset({"AveragePool", "GlobalAveragePool", "Add"})
UNCOVERED = frozenset(
    {"Softmax", "LayerNormalization", "TopK", "NonMaxSuppression", "If", "Loop", "Scan", "LSTM", "GRU", "Einsum"}
)
GATE_LENGTH_LIMIT = 2  # the longest gate is Mish's: Softplus, Tanh


@dataclass(eq=False, repr=False)
class Group:
    """Operators that run as one kernel; `residual` is the second input of an absorbed Add."""

    ops: list[Op]
    residual: tuple[Op, int] | None = None
    int8_uses: set[tuple[Op, int]] = field(default_factory=set)
    output_quantize: Op | None = None

    @property
    def head(self) -> Op:
        """The operator that gives the kernel its name."""
        return self.ops[0]

    @property
    def final(self) -> Activation:
        """The tensor that the last operator writes."""
        return self.ops[-1].outputs[0]


def ordered(network: Network) -> list[Op]:
    """Return the operators in execution order: after what they read, else as in the ONNX file."""
    waiting = {op: sum(activation.producer is not None for activation in op.inputs) for op in network.ops}
    ready = [(op.order, index, op) for index, op in enumerate(network.ops) if waiting[op] == 0]
    index_of = {op: index for index, op in enumerate(network.ops)}
    heapq.heapify(ready)
    result = []
    while ready:
        _, _, op = heapq.heappop(ready)
        result.append(op)
        for output in op.outputs:
            for user, _ in output.uses:
                waiting[user] -= 1
                if waiting[user] == 0:
                    heapq.heappush(ready, (user.order, index_of[user], user))
    return result


def fuse(ops: Sequence[Op]) -> list[Group]:
    """Return the kernels of `ops` (in execution order), converters apart; each is ordered by its last operator.

    The later of two convolutions takes the Add that joins them, as in published engines, hence the walk from the end.
    """
    position = {op: index for index, op in enumerate(ops)}
    taken: set[Op] = set()
    groups = []
    for op in reversed(ops):
        if op.kind in reading.WEIGHTED and op not in taken:
            group = _grow(op, taken)
            group.ops[1:] = sorted(group.ops[1:], key=position.__getitem__)
            taken.update(group.ops)
            groups.append(group)
    groups.extend(Group([op]) for op in ops if op not in taken and not (op.is_quantize or op.is_dequantize))
    for group in groups:
        _set_precision(group)
    return sorted(groups, key=lambda group: position[group.ops[-1]])


def _grow(head: Op, taken: set[Op]) -> Group:
    """Absorb, in this order, what exists of: BatchNorm and constant bias, one residual Add, one activation.

    Source: the fusion list of TensorRT's developer guide, and the passes GenericConvActFusion and ConvEltwiseSumFusion.
    """
    group = Group([head])
    while (follower := _free_user(group.final, taken)) is not None and _is_bias(follower):
        group.ops.append(follower)
    if follower is not None and _is_residual_add(follower):
        index = next(index for index, source in enumerate(follower.inputs) if source is not group.final)
        group.residual = (follower, index)
        group.ops.append(follower)
        follower = _free_user(group.final, taken)
    if follower is not None and follower.kind in ACTIVATIONS and len(follower.inputs) == 1:
        group.ops.append(follower)
    else:
        group.ops.extend(_gated(group.final, taken))
    return group


def _free_user(activation: Activation, taken: set[Op]) -> Op | None:
    user = activation.only_user()
    return None if user in taken else user


def _is_bias(op: Op) -> bool:
    return op.kind in ("BatchNormalization", "Add") and len(op.inputs) == 1


def _is_residual_add(op: Op) -> bool:
    """Tell whether the Add joins two activations without broadcasting, as far as dimensions are known."""
    if op.kind != "Add" or len(op.inputs) != 2:
        return False
    one, other = (activation.dims[1:] for activation in op.inputs)
    return not one or not other or one == other


def _gated(activation: Activation, taken: set[Op]) -> list[Op]:
    """Return the operators of `x * gate(x)` (SiLU, Mish, hard swish) when they alone read `activation`, else none."""
    users = [user for user, _ in activation.uses]
    if activation.is_output or len(users) != 2:
        return []
    for gate, product in (users, users[::-1]):
        found: list[Op] = []
        step: Op | None = gate
        while step is not None and step.kind in ACTIVATIONS and len(found) < GATE_LENGTH_LIMIT:
            found.append(step)
            step = step.outputs[0].only_user()
        if found and step is product and product.kind == "Mul" and not taken.intersection([*found, product]):
            return [*found, product]
    return []


def _set_precision(group: Group) -> None:
    """Decide whether the kernel reads and writes int8.

    A weighted kernel reads int8 when its data and its weight are dequantized; it writes int8 when one Q alone reads
    its result and a residual, if any, is dequantized too: the output precision follows the residual's. Where the
    result stays float, so does the residual.
    """
    head = group.head
    data = [(head, index) for index in range(len(head.inputs))]
    if not data or not all(map(_from_dequantize, data)):
        return
    quantize = group.final.only_user()
    writes = quantize is not None and quantize.is_quantize and quantize.per_tensor
    if head.kind in reading.WEIGHTED:
        if not head.int8_weight and len(data) < 2:
            return
        group.int8_uses.update(data)
        if writes and (group.residual is None or _from_dequantize(group.residual)):
            group.output_quantize = quantize
            group.int8_uses.update([group.residual] if group.residual else [])
    elif head.kind in INT8_BETWEEN_CONVERTERS and writes and not _has_constant(head):
        group.output_quantize = quantize
        group.int8_uses.update(data)


def _from_dequantize(use: tuple[Op, int]) -> bool:
    producer = use[0].inputs[use[1]].producer
    return producer is not None and producer.is_dequantize and producer.per_tensor


def _has_constant(op: Op) -> bool:
    return op.kind == "Add" and len(op.inputs) < 2


def outside_rules(ops: Iterable[Op]) -> tuple[str, ...]:
    """Return the kinds of operators that the rules do not cover, sorted: TensorRT may hand them to its compiler."""
    return tuple(sorted({op.kind for op in ops if op.kind in UNCOVERED or "." in op.kind}))
