"""Scale groups: activation tensors that must share one scale for TensorRT to leave no conversion between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.remembering import remembered

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Joint:
    """How one operator ties the scales of its input and output: the row of a table.

    why: what makes TensorRT need one scale here. source: where that is known from. confidence: "certain" where a
    document or a build log shows it, "likely" where it follows from arithmetic alone.
    """

    op: str
    applies: Callable[[ir.Node], bool]
    all_inputs: bool
    confidence: Literal["certain", "likely"]
    why: str
    source: str


def _always(_: ir.Node) -> bool:
    return True


def _nearest(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"


def _pads_zero(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return False
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    values = reading.constant(fill)
    return fill is None or (values is not None and not values.any())


def _keeps_type(node: ir.Node) -> bool:
    """A Cast between float types; where the file does not say what goes in, it is taken to be what comes out."""
    to = ir.DataType(node.attributes["to"].as_int())
    given = node.inputs[0].dtype if node.inputs[0] is not None else None
    return to.is_floating_point() and given in (None, to)


def _clips_at_zero_only(node: ir.Node) -> bool:
    """A Clip that is a Relu: any other bound lies between two steps of the scale, so rounding does not commute."""
    lowest, highest = (reading.constant(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
    if lowest is None or lowest.any():
        return False
    return len(node.inputs) < 3 or node.inputs[2] is None or (highest is not None and bool(np.isposinf(highest).all()))


_CLONED = "a quantizer behind it is cloned to every input"
_SWAPPED = "a quantizer behind it moves in front of it"
_COPIES = "it only moves values, so a quantizer can cross it"
_MONOTONE = "a maximum commutes with rounding by one scale"
_SWAP_LOG = "build logs of TensorRT 8.4 and 8.5, pass VanillaSwapWithFollowingQ"
_COPY_LIST = "TensorRT's copy operators as ModelOpt lists them"
_ARITHMETIC = "arithmetic"

# Operators not listed are barriers: their output's range has nothing to do with one scale of their inputs
# (linear Resize, AveragePool, Mul, Sigmoid, Add, Conv, Clip at 6, ...).
JOINTS: dict[str, Joint] = {
    joint.op: joint
    for joint in (
        Joint("Concat", _always, True, "certain", _CLONED, "build logs, pass SplitQAcrossPrecedingFanIn"),
        Joint("MaxPool", _always, False, "certain", _MONOTONE, "TensorRT developer guide; " + _SWAP_LOG),
        Joint("GlobalMaxPool", _always, False, "likely", _MONOTONE, _ARITHMETIC),
        Joint("Reshape", _always, False, "certain", _SWAPPED, _SWAP_LOG),
        Joint("Flatten", _always, False, "certain", _SWAPPED, _SWAP_LOG),
        Joint("Squeeze", _always, False, "certain", _SWAPPED, "a reshape; " + _COPY_LIST),
        Joint("Unsqueeze", _always, False, "certain", _SWAPPED, "a reshape; " + _COPY_LIST),
        Joint("Transpose", _always, False, "certain", _COPIES, "build logs, pass VanillaSwapWithPreceedingDQ"),
        Joint("Slice", _always, False, "certain", _SWAPPED, _SWAP_LOG),
        Joint("Split", _always, False, "likely", _SWAPPED, "lowered to Slice"),
        Joint("Resize", _nearest, False, "certain", _SWAPPED, _SWAP_LOG + "; nearest copies values"),
        Joint("Upsample", _nearest, False, "likely", _SWAPPED, "the old spelling of Resize"),
        Joint("Pad", _pads_zero, False, "likely", "zero is exact in every symmetric scale", _ARITHMETIC),
        Joint("Relu", _always, False, "likely", _MONOTONE, _ARITHMETIC),
        Joint("Clip", _clips_at_zero_only, False, "likely", _MONOTONE, "the Relu of some exporters"),
        Joint("DepthToSpace", _always, False, "likely", _COPIES, _ARITHMETIC),
        Joint("SpaceToDepth", _always, False, "likely", _COPIES, _ARITHMETIC),
        Joint("Expand", _always, False, "likely", _COPIES, _ARITHMETIC),
        Joint("Identity", _always, False, "certain", _COPIES, _ARITHMETIC),
        Joint("Cast", _keeps_type, False, "likely", "it is a copy between equal types", "ModelOpt exports some"),
        Joint("Dropout", _always, False, "likely", "it is the identity at inference", "ONNX"),
    )
}
_SHARED = "it is quantized more than once, and only equal quantizers merge (build logs, pass HorizontalMergeQNodes)"


@dataclass(frozen=True)
class Member:
    """One quantizer of a group: the tensor that it reads, its QuantizeLinear's output, its own scale and its type."""

    tensor: str
    quantized: str
    scale: float
    dtype: np.dtype[Any] = FLOAT32


@dataclass(frozen=True)
class ScaleGroup:
    """Quantizers that must share one scale, the operators that join them (`MaxPool y`, operator and output), and why.

    An operator is named only where it lies between two quantizers. why: one sentence for each kind of operator, with
    its source, and for each tensor that several quantizers read.
    """

    members: tuple[Member, ...]
    joined_by: tuple[str, ...]
    confidence: Literal["certain", "likely"]
    why: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are quantized, each once, in graph order."""
        return tuple(dict.fromkeys(member.tensor for member in self.members))

    @property
    def operators(self) -> tuple[str, ...]:
        """The types of the operators that join the group, each once."""
        return tuple(dict.fromkeys(label.split(" ", 1)[0] for label in self.joined_by))

    @property
    def scales(self) -> tuple[float, ...]:
        """Each member's own scale."""
        return tuple(member.scale for member in self.members)

    @property
    def agrees(self) -> bool:
        """Whether all scales are equal already."""
        return len(set(self.scales)) == 1


def joint_of(node: ir.Node) -> Joint | None:
    """Return the row for `node` when it ties scales, else None."""
    joint = JOINTS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return joint if joint is not None and joint.applies(node) else None


@remembered
def groups(model: ir.Model) -> tuple[ScaleGroup, ...]:
    """Return the scale groups of a Q/DQ graph in graph order: the union-find closure over JOINTS and shared tensors.

    Only per-tensor symmetric int8 activation quantizers take part. Groups of one quantizer are left out.
    Linear in the graph's size.
    """
    classes = classes_of(model)
    members: dict[int, list[Member]] = {}
    quantized: set[int] = set()
    for node in reading.nodes(model):
        if is_member(node):
            tensor, own, scale = node.inputs[0], reading.scalar_scale(node), reading.scale(node)
            assert own is not None and scale is not None
            member = Member(reading.name(tensor), reading.name(node.outputs[0]), own, scale.dtype)
            members.setdefault(classes.find(tensor), []).append(member)
            quantized.add(classes.tensor(tensor))
    joints: dict[int, list[tuple[ir.Node, Joint]]] = {}
    for node, joint in _between(classes, quantized):
        joints.setdefault(classes.find(node.outputs[0]), []).append((node, joint))
    return tuple(_group(found, joints.get(key, [])) for key, found in members.items() if len(found) > 1)


def _group(members: list[Member], joints: list[tuple[ir.Node, Joint]]) -> ScaleGroup:
    counts = Counter(member.tensor for member in members)
    why = [f"{one.op}: {one.why} ({one.confidence}; {one.source})" for _, one in joints]
    why += [f"tensor '{tensor}': {_SHARED}" for tensor, count in counts.items() if count > 1]
    return ScaleGroup(
        members=tuple(members),
        joined_by=tuple(reading.label(node) for node, _ in joints),
        confidence="likely" if any(one.confidence == "likely" for _, one in joints) else "certain",
        why=tuple(dict.fromkeys(why)),
    )


def _between(classes: Classes, quantized: set[int]) -> list[tuple[ir.Node, Joint]]:
    """Return the joints that lie between two quantizers: without the ends that no quantizer reads, cut one by one."""
    ends = [{classes.tensor(value) for value in _tied(node, joint)} for node, joint in classes.joints]
    touching: dict[int, set[int]] = {}
    for index, tensors in enumerate(ends):
        for tensor in tensors:
            touching.setdefault(tensor, set()).add(index)
    loose = [tensor for tensor, found in touching.items() if len(found) == 1 and tensor not in quantized]
    while loose:
        tensor = loose.pop()
        for index in touching.pop(tensor, set()):
            ends[index].discard(tensor)
            if len(ends[index]) == 1:
                (left,) = ends[index]
                ends[index].clear()
                touching[left].discard(index)
                if len(touching[left]) == 1 and left not in quantized:
                    loose.append(left)
    return [one for one, tensors in zip(classes.joints, ends, strict=True) if len(tensors) > 1]


def is_member(node: ir.Node) -> bool:
    """Tell whether `node` is a quantizer that a scale group may change.

    That is: on an activation, symmetric int8, with one constant scale that is positive and finite.
    """
    return reading.is_quantize(node) and _is_usable(node)


@remembered
def _is_usable(quantizer: ir.Node) -> bool:
    if not reading.is_activation(quantizer) or not reading.is_symmetric_int8(quantizer):
        return False
    scale = reading.scalar_scale(quantizer)
    return scale is not None and reading.is_positive(scale)


class Classes:
    """Disjoint sets of tensors (union by attaching, path halving), and the nodes that joined them.

    Two tensors are one where a Q or DQ alone stands between them (`tensor`); joints make sets of those (`find`).
    """

    def __init__(self) -> None:
        self._tensor: dict[int, int] = {}
        self._parent: dict[int, int] = {}
        self.joints: list[tuple[ir.Node, Joint]] = []

    def tensor(self, value: ir.Value | None) -> int:
        """Return the key of the tensor that `value` is, quantized or not."""
        return self._tensor.get(id(value), id(value))

    def find(self, value: ir.Value | None) -> int:
        """Return the key of the set that holds `value`."""
        key = self.tensor(value)
        self._parent.setdefault(key, key)
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def convert(self, before: ir.Value | None, after: ir.Value | None) -> None:
        """Take `after` for the same tensor as `before`; producers come first."""
        self._tensor[id(after)] = self.tensor(before)

    def union(self, one: ir.Value | None, other: ir.Value | None) -> None:
        """Join the sets of two values."""
        self._parent[self.find(other)] = self.find(one)


@remembered
def classes_of(model: ir.Model) -> Classes:
    """Return the classes of tensors whose scales TensorRT would have to equalise."""
    classes = Classes()
    wanted = wanted_int8(model)
    for node in reading.nodes(model):
        if (reading.is_quantize(node) or reading.is_dequantize(node)) and reading.is_activation(node):
            classes.convert(node.inputs[0], node.outputs[0])
            continue
        joint = joint_of(node)
        if joint is None or not any(id(output) in wanted for output in node.outputs):
            continue
        classes.joints.append((node, joint))
        for tensor in _tied(node, joint):
            classes.union(node.outputs[0], tensor)
    return classes


def _tied(node: ir.Node, joint: Joint) -> Iterator[ir.Value]:
    inputs = node.inputs if joint.all_inputs else node.inputs[:1]
    for value in (*inputs, *node.outputs):
        if value is not None and not reading.is_constant(value):
            yield value


@remembered
def wanted_int8(model: ir.Model) -> set[int]:
    """Return ids of tensors that a quantizer reads, directly or through operators that its Q can cross backward."""
    wanted: set[int] = set()
    for node in reversed(reading.nodes(model)):
        crossed = joint_of(node)
        int8 = reading.is_quantize(node) or reading.is_dequantize(node)
        if int8:
            wanted.add(id(node.inputs[0]))
        elif crossed is not None and any(id(output) in wanted for output in node.outputs):
            wanted.update(id(value) for value in _tied(node, crossed))
    return wanted
