"""Difference: one thing that two engines do differently, what it costs and what it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

DifferenceClass = Literal[
    "extra conversion",
    "extra reformat",
    "double write",
    "requantize",
    "float instead of int8",
    "int8 instead of float",
    "fusion",
    "format change",
    "other tactic",
    "only in a",
    "only in b",
]


@dataclass(frozen=True)
class Part:
    """What a difference is made of where it has several classes: costs are B minus A, as in `Difference`.

    quantizers: the module names of the quantizers concerned, as far as names tell. finding: the lint rule that mends
    it. group: the tensors that should share one scale.
    """

    kind: DifferenceClass
    cost_us: float | None
    cost_bytes: int | None
    message: str
    cause: str = ""
    remedy: str = ""
    quantizers: tuple[str, ...] = ()
    finding: str = ""
    group: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {"class": self.kind, **{name: value for name, value in asdict(self).items() if name != "kind"}}


@dataclass(frozen=True)
class Difference:
    """What A and B run differently in one place: for one group of ONNX nodes, or within one residual block.

    kind is the class of the part that costs most. cost_us and cost_bytes are B minus A over all the layers named:
    positive where B costs more; None where not known. cause is the ONNX tensor behind it, remedy the finding or scale
    group that mends it, with the command; both may be empty. quantizers, finding, group: as in `Part`.
    region: where in the network, as far as names tell. origins: where the knowledge of A and of B comes from.
    is_shown: False where the cost lies within what the profiles can resolve.
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
    quantizers: tuple[str, ...] = ()
    finding: str = ""
    group: tuple[str, ...] = ()
    region: str = ""
    parts: tuple[Part, ...] = ()
    origins: tuple[str, str] = ("", "")
    is_shown: bool = True

    @property
    def label(self) -> str:
        """Where the knowledge comes from: one word, or one for each side."""
        a, b = self.origins
        return a if a == b else f"A {a}, B {b}"

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "class": self.kind,
            "region": self.region,
            "onnx_nodes": list(self.onnx_nodes),
            "layers_a": list(self.layers_a),
            "layers_b": list(self.layers_b),
            "cost_us": self.cost_us,
            "cost_bytes": self.cost_bytes,
            "difference_shown": self.is_shown,
            "message": self.message,
            "cause": self.cause,
            "quantizers": list(self.quantizers),
            "remedy": self.remedy,
            "finding": self.finding,
            "group": list(self.group),
            "origins": dict(zip("ab", self.origins, strict=True)),
            "parts": [part.to_json() for part in self.parts],
        }


@dataclass(frozen=True)
class Role:
    """What the layers of one role take in each engine: how many there are, their profiled time, the bytes they move.

    role: convolutions, pools, Q/DQ conversions, reformats and copies, or other.
    """

    role: str
    layers_a: int
    layers_b: int
    a_us: float | None
    b_us: float | None
    a_bytes: int | None
    b_bytes: int | None

    @property
    def cost_us(self) -> float | None:
        """B minus A."""
        return None if self.a_us is None or self.b_us is None else round(self.b_us - self.a_us, 3)

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {**asdict(self), "cost_us": self.cost_us}


@dataclass(frozen=True)
class Rest:
    """The layers in no difference: both engines run them alike. Costs are B minus A: the unexplained rest."""

    layers_a: tuple[str, ...] = ()
    layers_b: tuple[str, ...] = ()
    cost_us: float | None = None
    cost_bytes: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Two aligned layer graphs: the share of layers aligned and every difference, ranked by cost.

    Differences and rest together hold every layer of A and of B once, so their costs add up to the totals.
    total_us: B minus A of the layers' profiled times. engine_us: the same of the engines' own mean times, where these
    were given: profiles add a wait to each layer, so the two differ. resolution_us: the step that the profiles resolve
    for one layer. share_a, share_b: the share aligned of each side's layers. notes: sentences that sum it up.
    """

    a: str
    b: str
    aligned_share: float
    differences: tuple[Difference, ...]
    total_us: float | None
    unexplained_us: float | None
    share_a: float = 1.0
    share_b: float = 1.0
    total_bytes: int | None = None
    unexplained_bytes: int | None = None
    rest: Rest = field(default_factory=Rest)
    roles: tuple[Role, ...] = ()
    resolution_us: float | None = None
    engine_us: float | None = None
    origins: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {
            "a": self.a,
            "b": self.b,
            "origins": dict(zip("ab", self.origins, strict=True)),
            "aligned_share": self.aligned_share,
            "aligned_share_a": self.share_a,
            "aligned_share_b": self.share_b,
            "differences": [difference.to_json() for difference in self.differences],
            "total_us": self.total_us,
            "unexplained_us": self.unexplained_us,
            "total_bytes": self.total_bytes,
            "unexplained_bytes": self.unexplained_bytes,
            "rest": asdict(self.rest),
            "roles": [role.to_json() for role in self.roles],
            "resolution_us": self.resolution_us,
            "engine_us": self.engine_us,
            "notes": list(self.notes),
        }
