"""Difference: one thing that two engines do differently, what it costs and what it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

DifferenceClass = Literal[
    "extra conversion",
    "double write",
    "requantize",
    "float instead of int8",
    "int8 instead of float",
    "fusion",
    "only in a",
    "only in b",
]


@dataclass(frozen=True)
class Difference:
    """What A and B run differently for one group of ONNX nodes.

    cost_us and cost_bytes are B minus A: positive where B costs more; None where not known.
    cause is the ONNX tensor behind it, remedy the finding or scale group that mends it; both may be empty.
    """

    kind: DifferenceClass
    onnx_nodes: tuple[str, ...]
    layers_a: tuple[str, ...]
    layers_b: tuple[str, ...]
    cost_us: float | None
    cost_bytes: int | None
    message: str
    cause: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "class": self.kind,
            "onnx_nodes": list(self.onnx_nodes),
            "layers_a": list(self.layers_a),
            "layers_b": list(self.layers_b),
            "cost_us": self.cost_us,
            "cost_bytes": self.cost_bytes,
            "message": self.message,
            "cause": self.cause,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Comparison:
    """Two aligned layer graphs: the share of layers aligned and every difference, ranked by cost."""

    a: str
    b: str
    aligned_share: float
    differences: tuple[Difference, ...]
    total_us: float | None
    unexplained_us: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "a": self.a,
            "b": self.b,
            "aligned_share": self.aligned_share,
            "differences": [difference.to_json() for difference in self.differences],
            "total_us": self.total_us,
            "unexplained_us": self.unexplained_us,
        }
