"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx_ir as ir

Safety = Literal["lossless", "numeric", "needs review"]
EVERY_TARGET = ("trt8.5", "trt8.6", "trt10", "trt11", "rtx")


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
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Rule:
    """A rule: its page for people, its examples as ONNX text, and what finds and mends.

    targets: the TensorRT versions that it holds for. safety: that of its fix at worst. `check` yields findings in graph
    order. `fix` takes fixable findings of this rule, edits the model in place and returns how many it mended; None when
    nothing can be mended without new knowledge.
    """

    code: str
    name: str
    page: str
    bad: str
    good: str
    safety: Safety
    targets: tuple[str, ...]
    check: Callable[[ir.Model], Iterator[Finding]]
    fix: Callable[[ir.Model, Sequence[Finding]], int] | None
