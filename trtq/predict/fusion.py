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
# Activations that stay with a convolution when a max pool joins them (CaskConvActPool in published engines).
POOLED_ACTIVATIONS = frozenset({"Relu", "BatchNormalization", "Add"})
UNCOVERED = frozenset(
    {"Softmax", "LayerNormalization", "TopK", "NonMaxSuppression", "If", "Loop", "Scan", "LSTM", "GRU", "Einsum"}
)
GATE_LENGTH_LIMIT = 3  # the longest gate is hard swish written out: Add, Clip, Div


@dataclass(eq=False, repr=False)
class Group:
    """Operators that run as one kernel; `residual` is the second input of an absorbed Add.

    `output_quantize` is the Q that the kernel does itself, and `pool` the max pool that it does behind that.
    """

    ops: list[Op]
    residual: tuple[Op, int] | None = None
    int8_uses: set[tuple[Op, int]] = field(default_factory=set)
    output_quantize: Op | None = None
    pool: Op | None = None

    @property
    def head(self) -> Op:
        """The operator that gives the kernel its name."""
        return self.ops[0]

    @property
    def final(self) -> Activation:
        """The tensor that the last operator writes."""
        return self.ops[-1].outputs[0]

    @property
    def last(self) -> Op:
        """The last operator that is no Q."""
        return self.pool or self.ops[-1]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ONNX nodes that the kernel computes."""
        ops = self.ops if self.pool is None else [*self.ops, self.pool]
        return tuple(dict.fromkeys(name for op in ops for name in op.nodes))

    @property
    def results(self) -> list[Activation]:
        """What the kernel writes: the Q's result where it quantizes, and no output that nothing reads."""
        outputs = (self.pool or self.output_quantize or self.ops[-1]).outputs
        return [output for output in outputs if output is outputs[0] or not output.is_dead()]


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
            if apart := _gated(group.final, taken):
                taken.update(apart)
                groups.append(Group(apart))
    for group in groups:
        _set_precision(group)
        taken.update(_pooled(group))
    for op in ops:
        if op.kind == "BatchNormalization" and op not in taken:
            groups.append(_scaled(op, taken))
            taken.update(groups[-1].ops)
    others = [Group([op]) for op in ops if op not in taken and not (op.is_quantize or op.is_dequantize)]
    for group in others:
        _set_precision(group)
    return sorted([*groups, *others], key=lambda group: position[group.last])


def _grow(head: Op, taken: set[Op]) -> Group:
    """Absorb, in this order, what exists of: BatchNorm and constant scale or bias, one residual Add, one activation.

    Source: the fusion list of TensorRT's developer guide, and the passes QConvScaleFusion, GenericConvActFusion and
    ConvEltwiseSumFusion. A BatchNorm behind a quantized ConvTranspose stays (TensorRT issue 3412). A gated activation
    behind a quantized depthwise convolution, whose own kernel is preferred, is a kernel too (TensorRT issue 3205).
    """
    group = Group([head])
    while (follower := _free_user(group.final, taken)) is not None and _is_scale(follower, head):
        group.ops.append(follower)
    if follower is not None and _is_residual_add(follower):
        index = next(index for index, source in enumerate(follower.inputs) if source is not group.final)
        group.residual = (follower, index)
        group.ops.append(follower)
        follower = _free_user(group.final, taken)
    if follower is not None and _is_activation(follower):
        group.ops.append(follower)
    elif not (head.depthwise and head.int8_weight):
        group.ops.extend(_gated(group.final, taken))
    return group


def _scaled(norm: Op, taken: set[Op]) -> Group:
    """Absorb the activation behind a BatchNorm that folds into nothing (fusion list: "Scale and Activation")."""
    follower = _free_user(norm.outputs[0], taken)
    return Group([norm, follower] if follower is not None and _is_activation(follower) else [norm])


def _pooled(group: Group) -> list[Op]:
    """Let an int8 convolution do the max pool that alone reads it, and return what else that takes."""
    if group.output_quantize is not None:
        group.pool = pool_of(group, group.output_quantize.outputs[0])
    return [] if group.pool is None else [group.pool]


def pool_of(group: Group, result: Activation) -> Op | None:
    """Return the max pool that an int8 convolution does too, None where there is none; `result` is what pools read.

    Source: the fusion list of TensorRT's developer guide ("Convolution and Pooling", of one precision), and the
    published engines, where it follows a plain convolution with Relu.
    """
    pool = result.only_user()
    plain = group.head.kind == "Conv" and group.residual is None
    if not plain or pool is None or pool.kind != "MaxPool":
        return None
    return pool if {op.kind for op in group.ops[1:]} <= POOLED_ACTIVATIONS else None


def _free_user(activation: Activation, taken: set[Op]) -> Op | None:
    user = activation.only_user()
    return None if user in taken else user


def _is_scale(op: Op, head: Op) -> bool:
    """Tell whether `op` folds into the weights of `head`: inference BatchNorm, or a constant a channel."""
    if len(op.inputs) != 1:
        return False
    if op.kind == "BatchNormalization":
        return not (head.kind == "ConvTranspose" and head.int8_weight)
    return op.per_channel_constant


def _is_residual_add(op: Op) -> bool:
    """Tell whether the Add joins two activations without broadcasting, as far as dimensions are known."""
    if op.kind != "Add" or len(op.inputs) != 2:
        return False
    one, other = (activation.dims[1:] for activation in op.inputs)
    if not one or not other:
        return True
    return len(one) == len(other) and all(a == b or a < 0 or b < 0 for a, b in zip(one, other, strict=True))


def _gated(activation: Activation, taken: set[Op]) -> list[Op]:
    """Return the operators of `x * gate(x)` (SiLU, Mish, hard swish) when they alone read `activation`, else none."""
    users = [user for user, _ in activation.uses]
    if activation.is_output or len(users) != 2:
        return []
    for gate, product in (users, users[::-1]):
        found: list[Op] = []
        step: Op | None = gate
        while step is not None and _is_gate_step(step) and len(found) < GATE_LENGTH_LIMIT:
            found.append(step)
            step = step.outputs[0].only_user()
        if found and step is product and product.kind == "Mul" and not taken.intersection([*found, product]):
            scaled = _free_user(product.outputs[0], taken)
            return [*found, product, *([scaled] if scaled is not None and scaled.uniform_constant else [])]
    return []


def _is_gate_step(op: Op) -> bool:
    return _is_activation(op) or (len(op.inputs) == 1 and op.uniform_constant)


def _is_activation(op: Op) -> bool:
    return op.kind in ACTIVATIONS and len(op.inputs) == 1


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
    if head.kind == "ConvTranspose" and quantize is not None and quantize.cloned:
        writes = False  # TensorRT issue 2597: such a Q stays a kernel of its own
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
