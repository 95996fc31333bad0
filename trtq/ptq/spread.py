"""Ranges of tensors that calibration did not name, from those of their neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import joint_of

# What TensorRT computes in one kernel with the convolution before it: the tensor between never exists, but the
# builder of implicit mode wants a range for it before it considers the int8 kernel.
FUSED = (
    "BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
    "Selu", "Softplus", "Mish", "Gelu", "Erf", "Mul", "Add", "Identity", "Dropout",
)  # fmt: skip
ROUNDS = 8  # one settles nearly every network; a bound keeps a hostile one linear


def spread(model: ir.Model, ranges: Mapping[str, float], *, through_fused: bool) -> dict[str, float]:
    """Return `ranges` with those that follow from them, by tensor; none is changed.

    An operator that keeps values (MaxPool, Concat, Reshape, ...: `qdq.groups.JOINTS`) has one range before and behind:
    the largest of its inputs. through_fused: a tensor that only a fused activation or sum reads takes the range of
    what that writes.
    """
    found = dict(ranges)
    for _ in range(ROUNDS):
        before = len(found)
        for node in model.graph:
            _forward(node, found)
        for node in reversed(model.graph):
            _backward(node, found, through_fused)
        if len(found) == before:
            break
    return found


def _forward(node: ir.Node, found: dict[str, float]) -> None:
    if joint_of(node) is None:
        return
    known = [found.get(reading.name(value)) for value in _tied_inputs(node)]
    if known and None not in known:
        largest = max(one for one in known if one is not None)
        for output in node.outputs:
            found.setdefault(reading.name(output), largest)


def _backward(node: ir.Node, found: dict[str, float], through_fused: bool) -> None:
    for value in node.outputs:
        name = reading.name(value)
        readers = list(value.consumers())
        if not name or name in found or not readers or value.is_graph_output():
            continue
        behind = [_range_behind(reader, value, found, through_fused) for reader in readers]
        if None not in behind:
            found[name] = max(one for one in behind if one is not None)


def _range_behind(reader: ir.Node, value: ir.Value, found: Mapping[str, float], through_fused: bool) -> float | None:
    """Return the range that `reader` hands back to `value`, None where it has none."""
    joined = joint_of(reader) is not None and any(one is value for one in _tied_inputs(reader))
    fused = through_fused and reader.op_type in FUSED and reader.domain in ("", "ai.onnx")
    if not joined and not fused:
        return None
    known = [found[name] for output in reader.outputs if (name := reading.name(output)) in found]
    return max(known, default=None)


def _tied_inputs(node: ir.Node) -> Iterator[ir.Value]:
    joint = joint_of(node)
    inputs = node.inputs if joint is not None and joint.all_inputs else node.inputs[:1]
    return (value for value in inputs if value is not None and not reading.is_constant(value))
