"""Scale groups as both kinds of tables show them, read from the form of `trtq unify --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ONE_TENSOR = "one tensor, several quantizers"


@dataclass(frozen=True)
class MemberRow:
    """A tensor of a group: the scale it had, and the bits of resolution that it loses to the shared one."""

    tensor: str
    scale: float | None
    coarser_bits: float | None


@dataclass(frozen=True)
class GroupRows:
    """A group: its members, the scale they share (None: `left` as they were), what that costs in decibels.

    outputs_sqnr_db: of the network's outputs, the one that the group's new scale changes most.
    """

    members: tuple[MemberRow, ...]
    joined_by: str
    scale: float | None
    predicted_loss_db: float | None
    measured_loss_db: float | None
    outputs_sqnr_db: float | None
    left: bool


def scale_group(group: Mapping[str, Any]) -> GroupRows:
    """Read one group of `trtq unify --json`."""
    tensors = tuple(map(str, group["tensors"]))
    unknown = (None,) * len(tensors)
    columns = (tensors, group.get("scales") or unknown, group.get("coarser_bits") or unknown)
    joined_by = ", ".join(dict.fromkeys(map(str, group.get("joined_by") or ())))
    return GroupRows(
        members=tuple(MemberRow(*row) for row in zip(*columns, strict=True)),
        joined_by=joined_by or ONE_TENSOR,
        scale=group.get("scale"),
        predicted_loss_db=group.get("predicted_loss_db"),
        measured_loss_db=group.get("measured_loss_db"),
        outputs_sqnr_db=min((float(one["sqnr_db"]) for one in group.get("output_change") or ()), default=None),
        left=bool(group.get("left")),
    )
