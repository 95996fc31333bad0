"""Q moves toward the input and DQ toward the output, equal ones merge and cancel, until nothing moves."""

from __future__ import annotations

from collections import deque

from trtq.predict.network import Activation, Network, Op


def settle(network: Network) -> None:
    """Run merges, cancellations and moves to their fixpoint, in place.

    Every tensor is crossed at most once and every converter merged at most once, so the work is linear in the number
    of edges. Source of the rules: the passes HorizontalMergeQNodes, SplitQAcrossPrecedingFanIn,
    VanillaSwapWithFollowingQ and VanillaSwapWithPreceedingDQ in verbose build logs of TensorRT 8.4 and 8.5.
    """
    waiting = deque(network.ops)
    while waiting:
        op = waiting.popleft()
        if not op.removed:
            waiting.extend(_step(network, op))
    network.ops = [op for op in network.ops if not op.removed]


def _step(network: Network, op: Op) -> list[Op]:
    """Do what `op` allows and return the operators that this may have set free."""
    if op.is_quantize or op.is_dequantize:
        first = op.inputs[0].converters.setdefault((op.kind, op.scale), op)
        if first is not op:
            return _merge(op, first)
    if op.is_quantize and op.per_tensor:
        return _cancel(op) or _move_back(network, op)
    if op.crossed_by_dq and op.inputs:
        return _move_forward(network, op)
    return []


def _merge(op: Op, first: Op) -> list[Op]:
    if op.outputs[0].is_output:
        return []
    first.nodes.extend(op.nodes)
    first.cloned = first.cloned and op.cloned
    users = _hand_over(op.outputs[0], first.outputs[0])
    op.remove()
    return [first, *users]


def _cancel(quantize: Op) -> list[Op]:
    """Take away a Q that undoes a DQ of its own scale."""
    dequantize = quantize.inputs[0].producer
    if dequantize is None or not dequantize.is_dequantize or dequantize.scale != quantize.scale:
        return []
    if quantize.outputs[0].is_output:
        return []
    users = _hand_over(quantize.outputs[0], dequantize.inputs[0])
    quantize.remove()
    _drop_if_dead(dequantize)
    return users


def _move_back(network: Network, quantize: Op) -> list[Op]:
    """Move a Q before the operator that wrote its tensor, where every reader of that operator is this same Q."""
    crossed = quantize.inputs[0].producer
    if crossed is None or not crossed.crossed_by_q or _pads_the_input(crossed):
        return []
    places = [(index, output) for index, output in enumerate(crossed.outputs) if not output.is_dead()]
    readers = [output.only_user() for _, output in places]
    if any(one is None or (one.kind, one.scale) != (quantize.kind, quantize.scale) for one in readers):
        return []
    for (index, _), reader in zip(places, readers, strict=True):
        assert reader is not None
        reader.remove()
        crossed.write(index, reader.outputs[0])
    moved = []
    for index in range(len(crossed.inputs) if crossed.kind == "Concat" else 1):
        clone = network.converter(quantize, crossed.inputs[index], cloned=crossed.kind == "Concat")
        crossed.read(index, clone.outputs[0])
        moved.append(clone)
    return moved


def _pads_the_input(op: Op) -> bool:
    return op.kind == "Pad" and op.inputs[0].producer is None


def _move_forward(network: Network, crossed: Op) -> list[Op]:
    """Move a DQ behind an operator that only selects or reorders values."""
    dequantize = crossed.inputs[0].producer
    if dequantize is None or not dequantize.is_dequantize or not dequantize.per_tensor:
        return []
    source, after = dequantize.inputs[0], [output for output in crossed.outputs if output.dtype == "float"]
    crossed.read(0, source)
    for index, output in enumerate(crossed.outputs):
        if output.dtype == "float" and not output.is_dead():
            before = network.quantized(output, source.dtype)
            crossed.write(index, before)
            network.converter(dequantize, before, output)
    _drop_if_dead(dequantize)
    return [user for output in after for user, _ in output.uses]


def _hand_over(old: Activation, new: Activation) -> list[Op]:
    users = list(old.uses)
    for user, index in users:
        user.read(index, new)
    return [user for user, _ in users]


def _drop_if_dead(op: Op) -> None:
    if op.outputs[0].is_dead():
        op.remove()
