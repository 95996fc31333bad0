"""Calibrated ranges as the page shows them: what each activation's quantizer can tell, one column a mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtq.report import wording
from trtq.report.data import RangeRow

INT8_LEVELS = 127


@dataclass(frozen=True)
class RangeCell:
    """A tensor's range in one mode: amax and scale as text, and amax as a share of the largest of all."""

    amax: str
    scale: str
    share: float


@dataclass(frozen=True)
class RangeLine:
    """A tensor, and its range in each mode; a dash where that mode does not quantize it."""

    tensor: str
    cells: tuple[RangeCell, ...]


@dataclass(frozen=True)
class Ranges:
    """All ranges, in the order that the network computes the tensors; modes of equal ranges share a column."""

    modes: tuple[str, ...]
    lines: tuple[RangeLine, ...]


def ranges(rows: Sequence[RangeRow]) -> Ranges:
    """Lay out the ranges; scale = amax / 127, the symmetric int8 of TensorRT."""
    modes = dict.fromkeys(mode for row in rows for mode in row.amax)
    columns: dict[tuple[float | None, ...], list[str]] = {}
    for mode in modes:
        columns.setdefault(tuple(row.amax.get(mode) for row in rows), []).append(mode)
    largest = max((amax for row in rows for amax in row.amax.values()), default=0.0) or 1.0
    return Ranges(
        tuple(" and ".join(names) for names in columns.values()),
        tuple(
            RangeLine(row.tensor, tuple(_cell(row.amax.get(names[0]), largest) for names in columns.values()))
            for row in rows
        ),
    )


def _cell(amax: float | None, largest: float) -> RangeCell:
    if amax is None:
        return RangeCell(wording.MISSING, wording.MISSING, 0.0)
    return RangeCell(f"{amax:#.4g}", wording.scale_text(amax / INT8_LEVELS), amax / largest)
