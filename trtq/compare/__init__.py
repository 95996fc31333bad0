"""Compare two layer graphs: which layers correspond, what differs, what it costs and which tensor is behind it."""

from __future__ import annotations

from trtq.compare.align import Alignment, Group, align
from trtq.compare.diff import compare, signal_table
from trtq.compare.difference import Comparison, Difference, DifferenceClass, Part, Rest, Role
from trtq.compare.gates import assert_fused
from trtq.compare.subjects import subject

__all__ = [
    "Alignment",
    "Comparison",
    "Difference",
    "DifferenceClass",
    "Group",
    "Part",
    "Rest",
    "Role",
    "align",
    "assert_fused",
    "compare",
    "signal_table",
    "subject",
]
