"""Changing scales: which Q and DQ nodes a group's scale belongs to, and giving it to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.errors import ModelError
from trtq.qdq import editing, reading
from trtq.qdq.groups import ScaleGroup, joint_of
from trtq.qdq.remembering import unchanged


@dataclass(frozen=True)
class Edit:
    """One edge whose scale changed: the tensor that goes into the Q or DQ node, and both scales."""

    tensor: str
    node: str
    old_scale: float
    new_scale: float

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return asdict(self)


def apply(
    model: ir.Model, chosen: Sequence[tuple[ScaleGroup, float]], suffix: str = "scale_unified"
) -> tuple[Edit, ...]:
    """Give the quantizers of each group and their DequantizeLinears the group's new scale, in place.

    suffix: what the new constants are called after the tensor's name.
    Raises `ModelError`, before anything is changed, for a DequantizeLinear whose scale is not its quantizer's.
    """
    with unchanged():
        changes = _changes(model, chosen)
    edits = tuple(
        Edit(reading.name(node.inputs[0]), reading.label(node), float(old.reshape(-1)[0]), chosen[index][1])
        for node, old, index in changes
    )
    shared: dict[tuple[int, np.dtype[Any]], ir.Value] = {}
    taken = editing.names(model) if changes else set()
    replaced: dict[ir.Value | None, None] = {}
    for node, old, index in changes:
        place = (index, old.dtype)
        if place not in shared:
            name = editing.unused_name(f"{reading.name(node.inputs[0])}_{suffix}", taken)
            shared[place] = editing.add_initializer(model, name, np.asarray(chosen[index][1], old.dtype))
        replaced[node.inputs[1]] = None
        node.replace_input_with(1, shared[place])
    # At the end, once each: looking whether a scale that thousands share is still read takes as long as its readers.
    for value in replaced:
        editing.drop_unused(model, value)
    return edits


_Change = tuple[ir.Node, npt.NDArray[Any], int]  # the last is the place of its group


def _changes(model: ir.Model, chosen: Sequence[tuple[ScaleGroup, float]]) -> list[_Change]:
    """Return the Q and DQ nodes that must take their group's scale, each with its present one."""
    by_quantized = {member.quantized: index for index, (group, _) in enumerate(chosen) for member in group.members}
    carried: dict[int, int] = {}  # the group whose scale an int8 tensor has
    changes: list[_Change] = []
    for node in model.graph if by_quantized else ():
        if reading.is_quantize(node):
            index = by_quantized.get(reading.name(node.outputs[0]))
        else:
            index = next((carried[id(value)] for value in node.inputs if id(value) in carried), None)
        if index is None:
            continue
        if reading.is_quantize(node) or joint_of(node) is not None:
            carried.update((id(value), index) for value in node.outputs)
        if reading.is_quantize(node) or reading.is_dequantize(node):
            changes.extend(_change(node, index, chosen[index][1]))
    return changes


def _change(node: ir.Node, index: int, scale: float) -> Iterator[_Change]:
    old = reading.scale(node)
    if old is None or old.size != 1:
        raise ModelError(
            f"tensor '{reading.name(node.inputs[0])}': the scale of its DequantizeLinear is computed or per channel,"
            " that of its QuantizeLinear is not; give both the same one"
        )
    if old.reshape(-1)[0] != np.asarray(scale, old.dtype):
        yield node, old, index
