"""Unify: give every scale group of a Q/DQ graph one scale, and say what that costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from trtq import files
from trtq.errors import ConfigError
from trtq.qdq import changes, leaving, policy, statistics
from trtq.qdq import model as onnx_file
from trtq.qdq.changes import Edit
from trtq.qdq.groups import Member, ScaleGroup, groups
from trtq.qdq.measure import Measured, OutputChange, measure
from trtq.qdq.policy import Policy
from trtq.qdq.remembering import unchanged, without_collection
from trtq.qdq.statistics import Observe, Statistics

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class UnifiedGroup:
    """A scale group, the scale chosen for it, and what that costs.

    predicted_db: the SQNR that each member loses, predicted. left: why the group keeps its own scales after all, empty
    where it does not; the costs are then what the chosen scale would have cost. measured: None where nobody measured.
    """

    group: ScaleGroup
    scale: float
    predicted_db: tuple[float, ...]
    left: str = ""
    measured: Measured | None = None

    def coarser_bits(self, member: Member) -> float:
        """Return by how many bits the member's step grows: log2 of new over old scale (negative: finer, clips)."""
        return math.log2(self.scale / member.scale)

    @property
    def predicted_loss_db(self) -> float:
        """The predicted SQNR that the worst member loses."""
        return max(self.predicted_db)

    @property
    def measured_loss_db(self) -> float | None:
        """The measured SQNR that the worst member loses."""
        return None if self.measured is None else max(self.measured.losses_db)

    @property
    def changes(self) -> bool:
        """Whether the group's quantizers get a scale that they did not all have."""
        return not self.group.agrees and not self.left

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form; lists have one entry a member."""
        measured = self.measured
        return {
            "tensors": [member.tensor for member in self.group.members],
            "joined_by": list(self.group.joined_by),
            "why": list(self.group.why),
            "confidence": self.group.confidence,
            "scales": list(self.group.scales),
            "scale": None if self.left else self.scale,
            "coarser_bits": [round(self.coarser_bits(member), 4) for member in self.group.members],
            "predicted_losses_db": [round(loss, 3) for loss in self.predicted_db],
            "predicted_loss_db": round(self.predicted_loss_db, 3),
            "measured_losses_db": None if measured is None else [round(loss, 3) for loss in measured.losses_db],
            "measured_loss_db": None if measured is None else round(max(measured.losses_db), 3),
            "output_change": None if measured is None else [one.to_json() for one in measured.outputs],
            "left": bool(self.left),
            "reason": self.left or None,
        }


@dataclass(frozen=True)
class UnifyReport:
    """Every scale group of a file, as it is after unifying, and the edges that were touched.

    output_change: how the network's outputs change by all edits together; empty where nobody measured.
    """

    groups: tuple[UnifiedGroup, ...]
    edits: tuple[Edit, ...]
    output_change: tuple[OutputChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "groups": [group.to_json() for group in self.groups],
            "edits": [edit.to_json() for edit in self.edits],
            "output_change": [one.to_json() for one in self.output_change],
        }


@dataclass(frozen=True)
class Choice:
    """How scales are chosen, and which groups keep theirs.

    policy: see `trtq.qdq.policy.choose`. leave: names of tensors, or operators that join groups. max_loss_db: a group
    that loses more keeps its scales; the measured loss decides where there is one, else the predicted one.
    calibration, measurement: run the network over images, for the statistics that prediction and "weighted" use, and
    to measure each group before and after.
    """

    policy: Policy = "max"
    leave: tuple[str, ...] = ()
    max_loss_db: float | None = None
    calibration: Observe | None = None
    measurement: Observe | None = None


def unify(
    model: ir.Model,
    choice: Choice | Policy = "max",
    *,
    only: Callable[[ScaleGroup], bool] | None = None,
    progress: Progress | None = None,
) -> UnifyReport:
    """Give each scale group of `model` one scale, in place.

    choice: a policy alone, or all there is to choose. only: the groups to look at; the others are left alone and out of
    the report. progress: called with how many groups are measured, and of how many.
    Raises, before anything is changed, `ModelError` for a DequantizeLinear whose scale is not its quantizer's,
    `ConfigError` for what cannot be chosen, and what running the network raises.
    """
    choice = choice if isinstance(choice, Choice) else Choice(choice)
    with unchanged():
        found = tuple(group for group in groups(model) if only is None or only(group))
    chosen = _with_scales(model, found, choice)
    if choice.measurement is not None:
        chosen = _measured(model, chosen, choice.measurement, progress)
    chosen = tuple(_left_if_costly(one, choice.max_loss_db) for one in chosen)
    before = model.clone() if choice.measurement is not None else None
    edits = changes.apply(model, [(one.group, one.scale) for one in chosen if one.changes])
    if before is None or choice.measurement is None or not edits:
        return UnifyReport(chosen, edits)
    return UnifyReport(chosen, edits, measure(before, model, (), 0, choice.measurement).outputs)


def unify_file(
    source: Path,
    target: Path,
    choice: Choice | Policy = "max",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> UnifyReport:
    """Unify the file `source` into `target`; a file that needs no edit is copied byte for byte.

    Raises what `unify` raises, `ModelError` for a file that is not ONNX, `ConfigError` when `target` is `source`
    without `overwrite`, `OutputError` when `target` cannot be written.
    """
    if target.resolve() == source.resolve() and not overwrite:
        raise ConfigError(f"{target}: is the input itself; choose another output or ask for --overwrite")
    with without_collection():
        model = onnx_file.load(source)
        report = unify(model, choice, progress=progress)
        if report.edits:
            onnx_file.save(model, target)
        elif target.resolve() != source.resolve():
            onnx_file.copy_weights(model, target.resolve().parent)
            files.write_bytes(target, source.read_bytes())
        return report


def _with_scales(model: ir.Model, found: Sequence[ScaleGroup], choice: Choice) -> tuple[UnifiedGroup, ...]:
    left = leaving.named(found, choice.leave)
    known: Mapping[str, Statistics] = {}
    if choice.calibration is not None:
        tensors = [tensor for group in found if not group.agrees for tensor in group.tensors]
        known = statistics.collect(model, tensors, choice.calibration)
    scales = [policy.choose(group, choice.policy, known) for group in found]
    return tuple(
        UnifiedGroup(group, scale, tuple(_predicted(group, scale, known)), reason)
        for group, scale, reason in zip(found, scales, left, strict=True)
    )


def _predicted(group: ScaleGroup, scale: float, known: Mapping[str, Statistics]) -> Iterable[float]:
    for member in group.members:
        yield policy.predicted_loss_db(member, scale, known.get(member.tensor))


def _measured(
    model: ir.Model, chosen: Sequence[UnifiedGroup], observe: Observe, progress: Progress | None
) -> tuple[UnifiedGroup, ...]:
    """Measure each group that changes, alone: the network before against the network with this one group unified."""
    changing = sum(one.changes for one in chosen)
    done = 0
    result = []
    for one in chosen:
        if not one.changes:
            result.append(one)
            continue
        alone = model.clone()
        changes.apply(alone, [(one.group, one.scale)])
        measured = measure(model, alone, one.group.members, one.scale, observe)
        result.append(dataclasses.replace(one, measured=measured))
        done += 1
        if progress is not None:
            progress(done, changing)
    return tuple(result)


def _left_if_costly(one: UnifiedGroup, max_loss_db: float | None) -> UnifiedGroup:
    if not one.changes:
        return one
    measured = one.measured_loss_db
    loss, origin = (one.predicted_loss_db, "predicted") if measured is None else (measured, "measured")
    return dataclasses.replace(one, left=leaving.costly(loss, max_loss_db, origin))
