"""What the rules that put in a missing Q/DQ pair share: where its scale comes from, and putting it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trtq import qdq
from trtq.qdq import editing, pairs, reading
from trtq.qdq.groups import Classes, classes_of, is_member, joint_of
from trtq.rules.finding import Context

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
# What passes on every value of its input: a scale behind it covers all of the tensor before it.
PASSES_ALL = frozenset(
    {"Concat", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Upsample", "Pad", "DepthToSpace",
     "SpaceToDepth", "Expand", "Identity", "Cast", "Dropout"}
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A reader that is to read `tensor` through a pair."""

    reader: ir.Node
    tensor: ir.Value


@dataclass(frozen=True)
class Range:
    """Where the scale of a tensor comes from: a quantizer in the file, or the largest value on calibration images."""

    quantizer: ir.Node | None = None
    amax: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is a scale at all."""
        return self.quantizer is not None or bool(self.amax)

    @property
    def scale(self) -> float:
        """The scale, zero where there is none."""
        return _scale(self.quantizer) if self.quantizer is not None else (self.amax or 0.0) / pairs.INT8_BOUND

    @property
    def remedy(self) -> str:
        """What a message says that the fix does, or what it waits for."""
        if self.quantizer is not None:
            return f"the fix adds a pair with the scale that it already has for another consumer ({self.scale:.4g})"
        if self.amax is None:
            return "its range is not in the file: calibrate (--calibration IMAGES) and the fix adds a pair"
        if not self.amax:
            return "it is zero on every calibration image and has no scale: calibrate on others"
        return f"the fix adds a pair with its range on the calibration images (up to {self.amax:.4g})"


def ranges_of(model: ir.Model, tensors: Sequence[ir.Value], context: Context) -> dict[int, Range]:
    """Return the range of each tensor, by its id: from the file where a quantizer covers it, else by calibration."""
    if not tensors:
        return {}
    known = _Known(model)
    found = {id(tensor): Range(known.quantizer(tensor)) for tensor in tensors}
    missing = tuple(dict.fromkeys(reading.name(one) for one in tensors if found[id(one)].quantizer is None))
    if missing and context.ranges is not None:
        amax = context.ranges(model, missing)
        for tensor in tensors:
            if found[id(tensor)].quantizer is None:
                found[id(tensor)] = Range(amax=_usable(amax[reading.name(tensor)]))
    return found


def mend(model: ir.Model, places: Sequence[Place], context: Context, suffix: str) -> int:
    """Put a pair in each place whose range is known, in place; return how many.

    A calibrated scale joins its scale group at the widest. suffix: what the names of the new tensors say of the pair.
    """
    ranges = ranges_of(model, [place.tensor for place in places], context)
    made = insert(model, [place for place in places if ranges[id(place.tensor)].known], ranges, suffix)
    join(model, {reading.name(new.outputs[0]) for new in made if ranges[id(new.inputs[0])].quantizer is None})
    return len(made)


def insert(model: ir.Model, places: Sequence[Place], ranges: Mapping[int, Range], suffix: str) -> list[ir.Node]:
    """Put a pair in each place, in place; return the new quantizers. ranges: by the tensor's id; all must be known."""
    taken = editing.names(model) if places else set()
    parameters: dict[int, tuple[ir.Value, ...]] = {}
    made = []
    for place in places:
        key, prefix = id(place.tensor), f"{reading.name(place.tensor)}_{suffix}"
        if key not in parameters:
            parameters[key] = _parameters(model, place.tensor, ranges[key], prefix, taken)
        made.append(pairs.insert(model, place.reader, place.tensor, parameters[key], taken, prefix=prefix))
    return made


def join(model: ir.Model, quantized: Set[str]) -> None:
    """Give the scale groups of these quantizers, named by what they write, their widest scale, in place."""
    if quantized:
        qdq.unify(model, only=lambda group: any(member.quantized in quantized for member in group.members))


def _parameters(model: ir.Model, tensor: ir.Value, own: Range, prefix: str, taken: set[str]) -> tuple[ir.Value, ...]:
    if own.quantizer is not None:
        return pairs.parameters_of(model, own.quantizer, prefix, taken)
    assert own.amax is not None
    return pairs.parameters_for(model, own.amax, prefix, taken, dtype=tensor.dtype)


def _usable(amax: float) -> float:
    """Return `amax`, or zero where it gives no scale that TensorRT takes."""
    return amax if reading.is_positive(amax) and amax / pairs.INT8_BOUND >= SMALLEST_SCALE else 0.0


class _Known:
    """The scales that a file holds, looked up for tensors that have no quantizer of their own."""

    def __init__(self, model: ir.Model) -> None:
        self.classes: Classes = classes_of(model)
        self.widest: dict[int, ir.Node] = {}
        self.covered: set[int] = set()
        self.found: dict[int, ir.Node | None] = {}
        for node in reading.nodes(model):
            if is_member(node):
                key = self.classes.find(node.inputs[0])
                self.widest[key] = max(self.widest.get(key, node), node, key=_scale)
        for node in reversed(reading.nodes(model)):
            self._look_after(node.outputs)
        self._look_after(model.graph.inputs)

    def quantizer(self, tensor: ir.Value | None) -> ir.Node | None:
        """Return the widest quantizer of the scale group that covers all values of `tensor`, or None.

        What an operator only copies or picks from has no smaller range than its result, so the walk goes up there.
        """
        walked: list[int] = []
        while tensor is not None and id(tensor) not in self.found and id(tensor) not in self.covered:
            walked.append(id(tensor))
            tensor = _copied(tensor)
        if tensor is None:
            result = None
        elif id(tensor) in self.found:
            result = self.found[id(tensor)]
        else:
            result = self.widest[self.classes.find(tensor)]
        self.found.update(dict.fromkeys(walked, result))
        return result

    def _look_after(self, values: Sequence[ir.Value]) -> None:
        self.covered.update(id(value) for value in values if any(map(self._covers, value.consumers())))

    def _covers(self, reader: ir.Node) -> bool:
        passes = reader.op_type in PASSES_ALL and joint_of(reader) is not None
        return is_member(reader) or (passes and id(reader.outputs[0]) in self.covered)


def _copied(tensor: ir.Value) -> ir.Value | None:
    """Return the tensor that `tensor` takes its values from, or None."""
    node = tensor.producer()
    if node is None:
        return None
    if reading.is_dequantize(node):
        return reading.quantized_tensor(node)
    joint = joint_of(node)
    return node.inputs[0] if joint is not None and not joint.all_inputs else None


def _scale(quantizer: ir.Node) -> float:
    return reading.scalar_scale(quantizer) or 0.0
