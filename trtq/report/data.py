"""ReportData: everything that a report shows, gathered by whoever built the modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtq.bench import BenchResult
from trtq.compare.align import Group
from trtq.compare.difference import Comparison
from trtq.layers.graph import LayerGraph, Origin, Signals

AS_EXPORTED, NATIVE = ", as exported", ", native"


@dataclass(frozen=True)
class ModeRow:
    """One mode of a recipe.

    accuracy: metric -> fraction from 0 to 1, measured on the ONNX file as exported. native_accuracy: the same of what
    ONNX Runtime's native form computes; empty where that is not built.
    predicted_conversions: leftover conversions that classic TensorRT's documented rules let expect.
    signals: the engine's, and origin says what they rest on; naive_signals: the same mode's before scales were unified.
    finetune: what the training recorded ("iterations", "final_loss", ...), in the order to show.
    """

    mode: str
    accuracy: Mapping[str, float] = field(default_factory=dict)
    onnx_bytes: int | None = None
    engine_bytes: int | None = None
    signals: Signals | None = None
    naive_signals: Signals | None = None
    origin: Origin | None = None
    predicted_conversions: int | None = None
    build_s: float | None = None
    finetune: Mapping[str, Any] = field(default_factory=dict)
    native_accuracy: Mapping[str, float] = field(default_factory=dict)


def accuracies(modes: Sequence[ModeRow]) -> tuple[dict[str, float], ...]:
    """Return each mode's accuracy by heading: a metric, and where any native form was measured also which form."""
    forms = any(row.native_accuracy for row in modes)
    return tuple(
        {
            **{metric + AS_EXPORTED * forms: value for metric, value in row.accuracy.items()},
            **{metric + NATIVE: value for metric, value in row.native_accuracy.items()},
        }
        for row in modes
    )


@dataclass(frozen=True)
class NamedGraph:
    """A mode's layer graph and its picture as `report.svg.svg` made it; None where `dot` is not installed."""

    mode: str
    graph: LayerGraph
    svg: str | None = None


@dataclass(frozen=True)
class Match:
    """Which layers of two modes' graphs compute the same, by their indices there; groups may be n:m or one-sided."""

    a: str
    b: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class RangeRow:
    """The calibrated range of one activation tensor: mode -> largest magnitude that its quantizer can tell (amax)."""

    tensor: str
    amax: Mapping[str, float]


@dataclass(frozen=True)
class ReportData:
    """A recipe's report: `groups` in the form of `trtq unify --json`, `manifest` as written beside the artefacts.

    benches: mode -> what `trtq bench` measured of its engines, one result a back end and machine.
    matches: the pairs of `graphs` to link; a pair that is not there is not linked.
    """

    recipe: str
    task: str
    verdict: tuple[str, ...]
    modes: tuple[ModeRow, ...]
    graphs: tuple[NamedGraph, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    matches: tuple[Match, ...] = ()
    benches: Mapping[str, Sequence[BenchResult]] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    ranges: tuple[RangeRow, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
