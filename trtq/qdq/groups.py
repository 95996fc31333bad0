"""Scale groups: activation tensors that must share one scale for TensorRT to leave no conversion between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trtq.qdq import reading


@dataclass(frozen=True)
class Joint:
    """How one operator ties the scales of its input and output: the row of a table, with where it is known from."""

    op: str
    applies: Callable[[ir.Node], bool]
    all_inputs: bool
    confidence: Literal["certain", "likely"]
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


# Operators not listed are barriers: their output's range has nothing to do with one scale of their inputs
# (linear Resize, AveragePool, Mul, Sigmoid, Add, Conv, ...).
JOINTS: dict[str, Joint] = {
    joint.op: joint
    for joint in (
        Joint("Concat", _always, True, "certain", "pass SplitQAcrossPrecedingFanIn clones Q to every input"),
        Joint("MaxPool", _always, False, "certain", "pass VanillaSwapWithFollowingQ; max commutes with rounding"),
        Joint("Reshape", _always, False, "certain", "pass VanillaSwapWithFollowingQ on Shuffle"),
        Joint("Flatten", _always, False, "certain", "pass VanillaSwapWithFollowingQ on Shuffle"),
        Joint("Squeeze", _always, False, "certain", "a reshape"),
        Joint("Unsqueeze", _always, False, "certain", "a reshape"),
        Joint("Transpose", _always, False, "certain", "pass VanillaSwapWithPreceedingDQ"),
        Joint("Slice", _always, False, "certain", "pass VanillaSwapWithFollowingQ on Slice"),
        Joint("Split", _always, False, "likely", "lowered to Slice"),
        Joint("Resize", _nearest, False, "certain", "pass VanillaSwapWithFollowingQ; nearest copies values"),
        Joint("Upsample", _nearest, False, "likely", "the old spelling of Resize"),
        Joint("Pad", _pads_zero, False, "likely", "zero is exact in every symmetric scale"),
        Joint("DepthToSpace", _always, False, "likely", "a permutation of values"),
        Joint("SpaceToDepth", _always, False, "likely", "a permutation of values"),
        Joint("Expand", _always, False, "likely", "copies values"),
        Joint("Identity", _always, False, "certain", "copies values"),
        Joint("Cast", _keeps_type, False, "likely", "copies values between equal types; modelopt exports some"),
        Joint("Dropout", _always, False, "likely", "the identity at inference"),
    )
}


@dataclass(frozen=True)
class Member:
    """One quantizer of a group: the tensor that it reads, its QuantizeLinear's output, and its own scale."""

    tensor: str
    quantized: str
    scale: float


@dataclass(frozen=True)
class ScaleGroup:
    """Quantizers that must share one scale, and the operators that join them (`MaxPool y`, operator and output)."""

    members: tuple[Member, ...]
    joined_by: tuple[str, ...]
    confidence: Literal["certain", "likely"]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are quantized, each once, in graph order."""
        return tuple(dict.fromkeys(member.tensor for member in self.members))

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


def groups(model: ir.Model) -> tuple[ScaleGroup, ...]:
    """Return the scale groups of a Q/DQ graph in graph order: the union-find closure over JOINTS and shared tensors.

    Only per-tensor symmetric int8 activation quantizers take part. Groups of one quantizer are left out.
    Linear in the graph's size.
    """
    classes = classes_of(model)
    members: dict[int, list[Member]] = {}
    for node in model.graph:
        if is_member(node):
            tensor, own = node.inputs[0], reading.scalar_scale(node)
            assert own is not None
            member = Member(reading.name(tensor), reading.name(node.outputs[0]), own)
            members.setdefault(classes.find(tensor), []).append(member)
    joints: dict[int, list[Joint]] = {}
    labels: dict[int, list[str]] = {}
    for node, joint in classes.joints:
        key = classes.find(node.outputs[0])
        joints.setdefault(key, []).append(joint)
        labels.setdefault(key, []).append(reading.label(node))
    return tuple(
        ScaleGroup(
            members=tuple(found),
            joined_by=tuple(labels.get(key, ())),
            confidence="likely" if any(one.confidence == "likely" for one in joints.get(key, ())) else "certain",
        )
        for key, found in members.items()
        if len(found) > 1
    )


def is_member(node: ir.Node) -> bool:
    """Tell whether `node` is a quantizer that a scale group may change.

    That is: on an activation, symmetric int8, with one constant scale that is positive and finite.
    """
    if not reading.is_quantize(node) or not reading.is_activation(node) or not reading.is_symmetric_int8(node):
        return False
    scale = reading.scalar_scale(node)
    return scale is not None and reading.is_positive(scale)


class Classes:
    """Disjoint sets of tensors (union by attaching, path halving), and the nodes that joined them."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self.joints: list[tuple[ir.Node, Joint]] = []

    def find(self, value: ir.Value | None) -> int:
        """Return the key of the set that holds `value`."""
        key = id(value)
        self._parent.setdefault(key, key)
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def union(self, one: ir.Value | None, other: ir.Value | None) -> None:
        """Join the sets of two values."""
        self._parent[self.find(other)] = self.find(one)


def classes_of(model: ir.Model) -> Classes:
    """Return the classes of tensors whose scales TensorRT would have to equalise."""
    classes = Classes()
    wanted = wanted_int8(model)
    for node in model.graph:
        if (reading.is_quantize(node) or reading.is_dequantize(node)) and reading.is_activation(node):
            classes.union(node.inputs[0], node.outputs[0])
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


def wanted_int8(model: ir.Model) -> set[int]:
    """Return ids of tensors that a quantizer reads, directly or through operators that its Q can cross backward."""
    wanted: set[int] = set()
    for node in reversed(model.graph):
        crossed = joint_of(node)
        int8 = reading.is_quantize(node) or reading.is_dequantize(node)
        if int8:
            wanted.add(id(node.inputs[0]))
        elif crossed is not None and any(id(output) in wanted for output in node.outputs):
            wanted.update(id(value) for value in _tied(node, crossed))
    return wanted
