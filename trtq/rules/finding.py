"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

Safety = Literal["lossless", "numeric", "needs review"]
EVERY_TARGET = ("trt8.5", "trt8.6", "trt10", "trt11", "rtx")
FROM_TRT10 = ("trt10", "trt11", "rtx")


@dataclass(frozen=True)
class Context:
    """What a rule may know besides the graph; None where nobody said.

    target: one of EVERY_TARGET. sm: the compute capability, "sm86". ranges: returns the largest absolute value of each
    named tensor over calibration images. refusals: returns what the target's own parser refuses, each as the tensor
    that the refused node writes, None where it is the whole file, and the reason.
    """

    target: str | None = None
    sm: str | None = None
    ranges: Callable[[ir.Model, Sequence[str]], Mapping[str, float]] | None = None
    refusals: Callable[[ir.Model], Sequence[tuple[str | None, str]]] | None = None


NOTHING_KNOWN = Context()


@dataclass(frozen=True)
class Finding:
    """One thing that a rule holds against a Q/DQ graph.

    tensors: what to change. removes: the conversions that the fix takes away, each named by the tensor that its
    QuantizeLinear writes. safety: what fixing does to the numbers; "needs review" when trtq cannot tell. fixable:
    whether the rule's fix would mend this one with what the file holds.
    """

    code: str
    name: str
    tensors: tuple[str, ...]
    removes: tuple[str, ...]
    message: str
    safety: Safety
    fixable: bool

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {**vars(self), "tensors": list(self.tensors), "removes": list(self.removes)}


@dataclass(frozen=True)
class Rule:
    """A rule: its page for people, its examples as ONNX text, and what finds and mends.

    targets: the TensorRT versions that it holds for. safety: that of its fix at worst. `check` yields findings in graph
    order. `fix` takes fixable findings of this rule, edits the model in place and returns how many it mended; None when
    the rule has no fix.
    """

    code: str
    name: str
    page: str
    bad: str
    good: str
    safety: Safety
    targets: tuple[str, ...]
    check: Callable[[ir.Model, Context], Iterator[Finding]]
    fix: Callable[[ir.Model, Sequence[Finding], Context], int] | None
