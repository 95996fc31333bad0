"""What a place's difference is made of: its layers by class, each in one bucket, so that the costs add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from trtq.compare.difference import DifferenceClass
from trtq.compare.entries import Entry, is_copy, layers_of
from trtq.compare.joining import Group
from trtq.compare.sides import Side
from trtq.layers import kinds
from trtq.layers.graph import Layer

_Sides = tuple[Side, Side]
Buckets = dict[DifferenceClass | None, Group]

# The weightiest first: what the others in a place come from.
CLASSES: tuple[DifferenceClass, ...] = (
    "double write", "requantize", "float instead of int8", "int8 instead of float", "fusion", "only in a", "only in b",
    "extra conversion", "extra reformat", "format change", "other tactic",
)  # fmt: skip
CARRIERS: tuple[tuple[DifferenceClass, Callable[[Layer], bool]], ...] = (
    ("extra conversion", kinds.is_conversion),
    ("extra reformat", is_copy),
)


def buckets(entry: Entry, sides: _Sides) -> Buckets:
    """Return the layers of each class in a place; under None those that differ in nothing of their own.

    Conversions and copies are of a class where one engine has more of them. Outside residual blocks, readers that only
    read another format count to what they read.
    """
    found: dict[DifferenceClass | None, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    more = {kind for kind, test in CARRIERS if _counts_differ(entry, sides, test)}
    strong = next((kind for kind in CLASSES if kind in entry.classes), None)
    for group, own in zip(entry.groups, entry.classes, strict=True):
        kind = strong if own == "format change" and not entry.is_block else own
        for side, indices in enumerate((group.a, group.b)):
            for index in indices:
                carried = _carrier(sides[side].layers[index])
                one_sided = carried is not None and not (group.a and group.b)
                bucket = carried if carried in more else "format change" if one_sided else kind
                found[bucket][side].append(index)
    return {kind: Group(tuple(sorted(a)), tuple(sorted(b))) for kind, (a, b) in found.items()}


def is_difference(found: Buckets) -> bool:
    """Tell whether a place differs in anything."""
    return any(kind is not None for kind in found)


def dearest(found: Buckets, cost: Callable[[Group], float]) -> list[DifferenceClass]:
    """Return the classes of a place, that of the largest cost first, then by weight."""
    named = [kind for kind in CLASSES if kind in found]
    return sorted(named, key=lambda kind: (-abs(cost(found[kind])), CLASSES.index(kind)))


def _carrier(layer: Layer) -> DifferenceClass | None:
    return next((kind for kind, test in CARRIERS if test(layer)), None)


def _counts_differ(entry: Entry, sides: _Sides, test: Callable[[Layer], bool]) -> bool:
    counts: list[Sequence[Layer]] = list(layers_of(entry.whole, sides))
    return sum(map(test, counts[0])) != sum(map(test, counts[1]))
