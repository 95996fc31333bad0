"""Networks without Q and DQ: float engines, and implicit PTQ, where TensorRT itself puts int8 where it has kernels.

Implicit PTQ knows a range for every tensor and is free to round anywhere, so what decides is which kernels exist: a
tensor is int8 where its kernel can write it and at least one reader takes it. Its placement is what explicit Q/DQ is
measured against. No engine with a layer table of its own was at hand to check these rules on.
Source: TensorRT 8.6's developer guide, "Working with INT8" (a layer runs in int8 where it has an int8 kernel, its
inputs and outputs have ranges, and that is fastest; Concat joins in place with one range).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trtq.layers.graph import DType, Layer, Tensor
from trtq.predict.fusion import INT8_BETWEEN_CONVERTERS, Group, pool_of
from trtq.predict.network import Activation, Network, Op
from trtq.qdq import reading


def strip(network: Network) -> None:
    """Take every Q and DQ out of a network, in place: what reads a DQ reads what went into its Q."""
    for op in network.ops:
        if op.is_quantize or op.is_dequantize:
            source, result = op.inputs[0], op.outputs[0]
            for user, index in list(result.uses):
                user.read(index, source)
            source.is_output = source.is_output or result.is_output
            op.remove()
    network.ops = [op for op in network.ops if not op.removed]


class Implicit:
    """Which tensors of a stripped network are int8, and which need a copy in the other type."""

    def __init__(self, network: Network, groups: Sequence[Group]) -> None:
        self._network = network
        self._groups = groups
        self._wanted: set[Activation] = set()
        self._int8: set[Activation] = set()
        self._copies: dict[Activation, Activation] = {}
        for group in reversed(groups):
            self._want(group)
        for group in groups:
            if group.final in self._wanted and self._writes_int8(group):
                self._int8.update(group.ops[-1].outputs)
        self._groups = self._pooled()

    def layers(self) -> Iterator[Layer]:
        """Yield the kernels in execution order, each behind the conversions that its inputs need."""
        for group in self._groups:
            inputs: dict[Tensor, None] = {}
            for op, index, activation in _read(group):
                int8 = self._takes_int8(group, op, index, self._int8)
                converted = activation.dtype == "float" and int8 != (activation in self._int8)
                if converted and activation not in self._copies:
                    yield self._conversion(activation)
                inputs[self._tensor(self._copies[activation] if converted else activation)] = None
            outputs = tuple(map(self._tensor, group.results))
            yield Layer(" + ".join(group.nodes), group.head.kind, tuple(inputs), outputs, group.nodes)
            result = group.results[0]
            if result.is_output and result in self._int8:
                yield self._conversion(result)

    def _pooled(self) -> Sequence[Group]:
        """Let int8 convolutions do the max pools that alone read them; the pool's place in the order becomes theirs."""
        doing = {}
        for group in self._groups:
            pool = pool_of(group, group.final) if group.final in self._int8 else None
            if pool is not None and pool.outputs[0] in self._int8:
                group.pool = pool
                doing[pool] = group
        return [doing.get(group.head, group) for group in self._groups if group.pool is None]

    def _want(self, group: Group) -> None:
        """Take note of what an int8 kernel would read; from the end, so that what moves values knows its readers."""
        for op, index, activation in _read(group):
            if self._takes_int8(group, op, index, self._wanted):
                self._wanted.add(activation)

    def _takes_int8(self, group: Group, op: Op, index: int, results: set[Activation]) -> bool:
        """Tell whether an input is read in int8; for all but a weighted kernel's own that hangs on its `results`."""
        if group.head.kind in reading.WEIGHTED and op is group.head:
            return True
        if group.head.kind in reading.WEIGHTED:
            return (op, index) == group.residual and group.final in results
        return _has_int8_kernel(group.head) and any(output in results for output in group.head.outputs)

    def _writes_int8(self, group: Group) -> bool:
        head = group.head
        if head.kind in reading.WEIGHTED or head.kind in INT8_BETWEEN_CONVERTERS:
            return _has_int8_kernel(head)
        return head.crossed_by_q and any(one in self._int8 or one.producer is None for one in head.inputs)

    def _conversion(self, activation: Activation) -> Layer:
        """Return the kernel that gives `activation` its other type."""
        int8 = activation in self._int8
        copy = self._network.quantized(activation, "float" if int8 else "int8")
        self._copies[activation] = copy
        if not int8:
            self._int8.add(copy)
        kind = "dequantize" if int8 else "quantize"
        nodes = () if activation.producer is None else tuple(activation.producer.nodes[-1:])
        return Layer(f"{activation.name} {kind}", kind, (self._tensor(activation),), (self._tensor(copy),), nodes)

    def _tensor(self, activation: Activation) -> Tensor:
        dtype: DType = "int8" if activation in self._int8 else activation.dtype
        return Tensor(activation.name, activation.dims, dtype)


def float_layers(groups: Sequence[Group], dtype: DType) -> Iterator[Layer]:
    """Yield the kernels of an engine without int8; `dtype` stands for every float."""
    for group in groups:
        inputs = dict.fromkeys(_float(activation, dtype) for _, _, activation in _read(group))
        outputs = tuple(_float(output, dtype) for output in group.results)
        yield Layer(" + ".join(group.nodes), group.head.kind, tuple(inputs), outputs, group.nodes)


def _float(activation: Activation, dtype: DType) -> Tensor:
    return Tensor(activation.name, activation.dims, dtype if activation.dtype == "float" else activation.dtype)


def _read(group: Group) -> Iterator[tuple[Op, int, Activation]]:
    """Yield what the kernel reads from outside: operator, input index, tensor."""
    own = set(group.ops)
    for op in group.ops:
        for index, activation in enumerate(op.inputs):
            if activation.producer not in own:
                yield op, index, activation


def _has_int8_kernel(head: Op) -> bool:
    if head.kind in INT8_BETWEEN_CONVERTERS:
        return len(head.inputs) == (2 if head.kind == "Add" else 1)
    return head.kind in reading.WEIGHTED or head.crossed_by_q
