"""Unify: give every scale group of a Q/DQ graph one scale, and say what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq import files
from trtq.errors import ConfigError, ModelError
from trtq.qdq import editing, reading
from trtq.qdq import model as onnx_file
from trtq.qdq.groups import Member, ScaleGroup, groups, joint_of

Policy = Literal["max", "output"]


@dataclass(frozen=True)
class UnifiedGroup:
    """A scale group and the scale that it got."""

    group: ScaleGroup
    scale: float

    def coarser_bits(self, member: Member) -> float:
        """Return by how many bits the member's step grew: log2 of new over old scale (negative: finer, clips)."""
        return math.log2(self.scale / member.scale)

    @property
    def predicted_loss_db(self) -> float:
        """SQNR that the worst member loses: 20 log10 of the step ratio, since rounding noise grows with step squared.

        Source: the uniform quantizer's noise power, step^2 / 12. Clipping by a smaller scale is not in it.
        """
        return max(0.0, 20 * math.log10(max(self.scale / member.scale for member in self.group.members)))

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "tensors": [member.tensor for member in self.group.members],
            "joined_by": list(self.group.joined_by),
            "confidence": self.group.confidence,
            "scales": list(self.group.scales),
            "scale": self.scale,
            "coarser_bits": [round(self.coarser_bits(member), 4) for member in self.group.members],
            "predicted_loss_db": round(self.predicted_loss_db, 3),
            "measured_loss_db": None,
            "left": False,
        }


@dataclass(frozen=True)
class Edit:
    """One edge whose scale changed: the tensor that goes into the Q or DQ node, and both scales."""

    tensor: str
    node: str
    old_scale: float
    new_scale: float


@dataclass(frozen=True)
class UnifyReport:
    """Every scale group of a file, as it is after unifying, and the edges that were touched."""

    groups: tuple[UnifiedGroup, ...]
    edits: tuple[Edit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "groups": [group.to_json() for group in self.groups],
            "edits": [
                {
                    "tensor": edit.tensor,
                    "node": edit.node,
                    "old_scale": edit.old_scale,
                    "new_scale": edit.new_scale,
                }
                for edit in self.edits
            ],
        }


def unify(model: ir.Model, policy: Policy = "max", *, only: Callable[[ScaleGroup], bool] | None = None) -> UnifyReport:
    """Give each scale group of `model` one scale, in place.

    policy: "max" takes the widest range of the group, so that nothing clips that did not clip before; "output" the
    scale of the last quantizer in graph order, the one nearest to the consumer.
    only: the groups to unify; the others are left alone and out of the report.
    Raises `ModelError`, before anything is changed, for a DequantizeLinear whose scale is not its quantizer's.
    """
    found = (group for group in groups(model) if only is None or only(group))
    chosen = tuple(UnifiedGroup(group, _choose(group, policy)) for group in found)
    changes = _changes(model, [one for one in chosen if not one.group.agrees])
    edits = [
        Edit(reading.name(node.inputs[0]), reading.label(node), float(old.reshape(-1)[0]), group.scale)
        for node, old, group in changes
    ]
    shared: dict[tuple[int, np.dtype[Any]], ir.Value] = {}
    taken = editing.names(model) if changes else set()
    for node, old, group in changes:
        place = (id(group), old.dtype)
        if place not in shared:
            wanted = f"{reading.name(node.inputs[0])}_scale_unified"
            name = editing.unused_name(wanted, taken)
            shared[place] = editing.add_initializer(model, name, np.asarray(group.scale, old.dtype))
        replaced = node.inputs[1]
        node.replace_input_with(1, shared[place])
        editing.drop_unused(model, replaced)
    return UnifyReport(chosen, tuple(edits))


def unify_file(source: Path, target: Path, policy: Policy = "max", *, overwrite: bool = False) -> UnifyReport:
    """Unify the file `source` into `target`; a file that needs no edit is copied byte for byte.

    Raises `ModelError` for a file that is not ONNX, `ConfigError` when `target` is `source` without `overwrite`,
    `OutputError` when `target` cannot be written.
    """
    if target.resolve() == source.resolve() and not overwrite:
        raise ConfigError(f"{target}: is the input itself; choose another output or ask for --overwrite")
    model = onnx_file.load(source)
    report = unify(model, policy)
    if report.edits:
        onnx_file.save(model, target)
    elif target.resolve() != source.resolve():
        onnx_file.copy_weights(model, target.resolve().parent)
        files.write_bytes(target, source.read_bytes())
    return report


def _choose(group: ScaleGroup, policy: Policy) -> float:
    if policy == "max":
        return max(group.scales)
    if policy == "output":
        return group.members[-1].scale
    raise ConfigError(f"policy '{policy}' is not known; it must be max or output")


_Change = tuple[ir.Node, npt.NDArray[Any], UnifiedGroup]


def _changes(model: ir.Model, chosen: list[UnifiedGroup]) -> list[_Change]:
    """Return the Q and DQ nodes that must take their group's scale, each with its present one."""
    by_quantized = {member.quantized: one for one in chosen for member in one.group.members}
    carried: dict[int, UnifiedGroup] = {}  # the group whose scale an int8 tensor has
    changes: list[_Change] = []
    for node in model.graph if by_quantized else ():
        if reading.is_quantize(node):
            group = by_quantized.get(reading.name(node.outputs[0]))
        else:
            group = next((carried[id(value)] for value in node.inputs if id(value) in carried), None)
        if group is None:
            continue
        if reading.is_quantize(node) or joint_of(node) is not None:
            carried.update((id(value), group) for value in node.outputs)
        if reading.is_quantize(node) or reading.is_dequantize(node):
            changes.extend(_change(node, group))
    return changes


def _change(node: ir.Node, group: UnifiedGroup) -> Iterator[_Change]:
    old = reading.scale(node)
    if old is None or old.size != 1:
        raise ModelError(
            f"tensor '{reading.name(node.inputs[0])}': the scale of its DequantizeLinear is computed or per channel,"
            " that of its QuantizeLinear is not; give both the same one"
        )
    if old.reshape(-1)[0] != np.asarray(group.scale, old.dtype):
        yield node, old, group
