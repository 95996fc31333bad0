"""The ranked differences of two engines as the page shows them: where to see each, and the command that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from trtq.compare.difference import Comparison, Difference, Part
from trtq.layers.graph import LayerGraph
from trtq.report import wording
from trtq.report.data import NamedGraph

LINKED_LAYERS = 40
PARTS_SHOWN = 12
# A command in a remedy: up to what explains it.
_COMMAND = re.compile(r"trtq (?:lint|unify|ptq|fp16|quantize|finetune|export|build) .+?(?=: | \(|; |$)")


@dataclass(frozen=True)
class Remedied:
    """What happens and what mends it: words before the command, the command or "", words after it."""

    kind: str
    cost: str
    sign: int
    message: str
    cause: str
    before: str
    command: str
    after: str


@dataclass(frozen=True)
class DifferenceRow:
    """One difference, and the first of its `count` parts where it has several.

    layers: where to see it, as the script reads it: `0:3,4 1:5`, "" where no graph has it.
    """

    about: Remedied
    region: str
    label: str
    layers: str
    is_shown: bool
    parts: tuple[Remedied, ...]
    count: int


class ComparisonView:
    """A comparison with its differences' layers found in the graphs."""

    def __init__(self, comparison: Comparison, graphs: Sequence[NamedGraph]) -> None:
        self.comparison = comparison
        self.names = tuple(PurePath(side).name or side for side in (comparison.a, comparison.b))
        self._sides = tuple(_named(graphs, side) for side in (comparison.a, comparison.b))
        self._indices = [None if side is None else _indices(graphs[side].graph) for side in self._sides]

    @property
    def panes(self) -> str:
        """The graphs to lay side by side, as the script reads them: `0 1`."""
        return " ".join(str(side) for side in self._sides if side is not None)

    @property
    def rows(self) -> Iterator[DifferenceRow]:
        """The differences in the comparison's order."""
        for one in self.comparison.differences:
            parts = one.parts if len(one.parts) > 1 else ()
            yield DifferenceRow(
                about=_remedied(one),
                region=one.region,
                label=one.label,
                layers=self._layers(one),
                is_shown=one.is_shown,
                parts=tuple(map(_remedied, parts[:PARTS_SHOWN])),
                count=len(parts),
            )

    @property
    def aligned(self) -> str:
        """The share of the layers that have a counterpart, for each side where the two differ."""
        one = self.comparison
        if one.share_a == one.share_b:
            return f"{wording.percent(one.aligned_share)} of the layers aligned"
        shares = (
            f"{wording.percent(share)} of {name}’s"
            for share, name in zip((one.share_a, one.share_b), self.names, strict=True)
        )
        return f"{' and '.join(shares)} layers aligned"  # fmt: skip

    @property
    def total(self) -> str:
        """B minus A over all layers, "" where it is not known."""
        return _known(self.comparison.total_us, self.comparison.total_bytes)

    @property
    def rest(self) -> str:
        """What of the total no difference holds, "" where it is not known."""
        return _known(self.comparison.unexplained_us, self.comparison.unexplained_bytes)

    def _layers(self, difference: Difference) -> str:
        found = []
        layers_of = (difference.layers_a, difference.layers_b)
        for side, layers, where in zip(self._sides, layers_of, self._indices, strict=True):
            known = [str(where[layer]) for layer in layers if layer in where] if where else []
            if side is not None and known:
                found.append(f"{side}:{','.join(known[:LINKED_LAYERS])}")
        return " ".join(found)


def first_panes(views: Sequence[ComparisonView], graphs: int) -> str:
    """Return the two graphs that the page opens with: of the first comparison that differs, else the first."""
    ranked = sorted(views, key=lambda view: not view.comparison.differences)
    panes = next((view.panes for view in ranked if len(view.panes.split()) == 2), "")
    return panes or " ".join(str(number) for number in range(min(2, graphs)))


def _remedied(one: Difference | Part) -> Remedied:
    cost = one.cost_us if one.cost_us is not None else one.cost_bytes
    found = _COMMAND.search(one.remedy)
    start, end = found.span() if found else (len(one.remedy), len(one.remedy))
    causes = [name for name in (one.cause, *one.quantizers) if name and name not in one.message]
    return Remedied(
        kind=one.kind,
        cost=wording.cost_text(one.cost_us, one.cost_bytes),
        sign=0 if not cost else 1 if cost > 0 else -1,
        message=one.message,
        cause=", ".join(dict.fromkeys(causes)),
        before=one.remedy[:start].strip(" :,"),
        command=one.remedy[start:end],
        after=one.remedy[end:].strip(" :,"),
    )


def _known(cost_us: float | None, cost_bytes: int | None) -> str:
    return "" if cost_us is None and cost_bytes is None else wording.cost_text(cost_us, cost_bytes)


def _named(graphs: Sequence[NamedGraph], side: str) -> int | None:
    wanted = (side, PurePath(side).name)
    return next((number for number, named in enumerate(graphs) if named.mode in wanted), None)


def _indices(graph: LayerGraph) -> dict[str, int]:
    return {layer.name: index for index, layer in enumerate(graph.layers)}
