"""Which layers of two engines compute the same part of the network.

ONNX node names are an identity only within one ONNX file, so a match also needs the same kind of operation, equal
output dimensions, as many weights where both sides tell, and matched neighbours where any are matched; numbered names
(`Conv_84`) are a hint that comes last. What names leave open, topology decides: layers that stand alone in what they
are and in what is around them, the neighbours of matched layers, then layers that occur equally often in both engines.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from trtq.compare import joining
from trtq.compare.joining import Group
from trtq.compare.sides import Side, colors, sides_of, tight_keys
from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph

__all__ = ["Alignment", "Group", "align", "numbered"]

# A name that an exporter counts up: no identity in another export.
_NUMBERED = re.compile(r"[^./]*\d+")
# A node in more layers than this tells nothing, and comparing all of them would take quadratic time.
COMMON_LAYERS = 16
STRANGER_ROUNDS = 4


@dataclass(frozen=True)
class Alignment:
    """Every layer of A and B in exactly one group, in execution order.

    Shares count layers that have a counterpart, of those that read or write a tensor and launch a kernel; of all
    layers where an engine tells no tensors.
    """

    groups: tuple[Group, ...]
    sides: tuple[Side, Side]

    @property
    def share(self) -> float:
        """The share of both engines' layers together."""
        return _share([*self._counted(0), *self._counted(1)])

    @property
    def share_a(self) -> float:
        """The share of A's layers."""
        return _share(self._counted(0))

    @property
    def share_b(self) -> float:
        """The share of B's layers."""
        return _share(self._counted(1))

    def _counted(self, side: int) -> list[bool]:
        layers = self.sides[side].layers
        has_tensors = any(layer.inputs or layer.outputs for layer in layers)
        return [
            bool(group.a and group.b)
            for group in self.groups
            for index in (group.b if side else group.a)
            if not has_tensors or takes_part(layers[index])
        ]


def takes_part(layer: Layer) -> bool:
    """Tell whether a layer launches a kernel and reads or writes a tensor: only such a layer can have a counterpart."""
    return bool(layer.inputs or layer.outputs) and not kinds.is_idle(layer)


def align(a: LayerGraph, b: LayerGraph) -> Alignment:
    """Match the layers of two graphs: 1:1 by names and topology, then n:m where one fused what the other split."""
    sides = sides_of(a, b)
    same_file = a.onnx_sha256 is not None and a.onnx_sha256 == b.onnx_sha256
    strong = [
        [frozenset(name for name in names if same_file or not numbered(name)) for names in side.names] for side in sides
    ]
    pairs = _Pairs(*sides, strong=strong, keys=tight_keys(*sides))
    pairs.match_names(strong)
    if not same_file:
        pairs.drop_strangers()
    pairs.spread()
    pairs.match_topology()
    pairs.match_names([side.names for side in sides])
    pairs.spread()
    pairs.match_carriers()
    pairs.match_untold()
    return Alignment(joining.groups(sides, pairs.to_b, strong), sides)


@dataclass
class _Pairs:
    """The 1:1 matches found so far."""

    a: Side
    b: Side
    strong: Sequence[Sequence[frozenset[str]]]
    keys: tuple[list[Hashable], list[Hashable]]
    to_b: dict[int, int] = field(default_factory=dict)
    to_a: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.colors = colors((self.a, self.b), self.keys)

    def match_names(self, names: Sequence[Sequence[frozenset[str]]]) -> None:
        """Match free layers that may be one, those with the largest share of ONNX nodes in common first."""
        names_a, names_b = names
        holders = joining.holders(frozenset() if j in self.to_a else one for j, one in enumerate(names_b))
        candidates = []
        for i, one in enumerate(names_a):
            if i in self.to_b:
                continue
            for j, common in Counter(j for name in one for j in holders.get(name, ())).items():
                if self._may_match(i, j):
                    jaccard = common / (len(one) + len(names_b[j]) - common)
                    candidates.append((-jaccard, self.keys[0][i] != self.keys[1][j], abs(i - j), i, j))
        for *_, i, j in sorted(candidates):
            self._add(i, j)

    def drop_strangers(self) -> None:
        """Undo matches by name where most matched neighbours are elsewhere in the other engine, or none are left.

        In rounds, for a wrong match makes strangers of right ones beside it; topology finds those again.
        """
        alone = {i for i, j in self.to_b.items() if not self._neighbours_kept(i, j)[1]}
        for _ in range(STRANGER_ROUNDS):
            judged = [(i, j, *self._neighbours_kept(i, j)) for i, j in self.to_b.items()]
            strangers = [(i, j) for i, j, kept, known in judged if 2 * kept < known or (not known and i not in alone)]
            for i, j in strangers:
                del self.to_b[i], self.to_a[j]
            if not strangers:
                return

    def match_topology(self) -> None:
        """Match layers that stand alone in what is around them, then those that are equally many, in order."""
        for match in (self._match_unique, self._match_in_order):
            for depth in range(len(self.colors[0]) - 1, -1, -1):
                match(self.colors[0][depth], self.colors[1][depth])
                self.spread()

    def match_carriers(self) -> None:
        """Match conversions and copies between matched layers; what carries an input of the network is one kind."""
        free_a = _by_key(self._free_carriers(self.a, self.to_b), self._place_a)
        free_b = _by_key(self._free_carriers(self.b, self.to_a), self._place_b)
        for key, some in free_a.items():
            for pair in zip(some, free_b.get(key, ()), strict=False):
                self._add(*pair)

    def match_untold(self) -> None:
        """Match layers without tensors, as engines without details have them, by their whole names, in order."""
        free_a = _by_key(_untold(self.a, self.to_b), self._name_a)
        free_b = _by_key(_untold(self.b, self.to_a), self._name_b)
        for name, some in free_a.items():
            for pair in zip(some, free_b.get(name, ()), strict=False):
                self._add(*pair)

    def spread(self) -> None:
        """Match free neighbours of matched layers where they correspond one to one, and theirs in turn."""
        queue = deque(self.to_b.items())
        while queue:
            i, j = queue.popleft()
            for near_a, near_b in ((self.a.readers[i], self.b.readers[j]), (self.a.makers[i], self.b.makers[j])):
                if len(near_a) <= COMMON_LAYERS >= len(near_b):
                    queue.extend(self._match_near(near_a, near_b))

    def _match_near(self, near_a: Sequence[int], near_b: Sequence[int]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        if all(i in self.to_b for i in near_a) or all(j in self.to_a for j in near_b):
            return found
        for colors_a, colors_b in zip(self.colors[0][::-1], self.colors[1][::-1], strict=True):
            free_a = _by_key((i for i in near_a if i not in self.to_b), colors_a.__getitem__)
            free_b = _by_key((j for j in near_b if j not in self.to_a), colors_b.__getitem__)
            for key, some in free_a.items():
                others = free_b.get(key, [])
                if len(some) == len(others):
                    found += [pair for pair in zip(some, others, strict=True) if self._add(*pair)]
        return found

    def _match_unique(self, colors_a: Sequence[int], colors_b: Sequence[int]) -> None:
        once_a, once_b = _once(self.a, colors_a), _once(self.b, colors_b)
        for color in once_a.keys() & once_b.keys():
            self._add(once_a[color], once_b[color])

    def _match_in_order(self, colors_a: Sequence[int], colors_b: Sequence[int]) -> None:
        free_a = _by_key((i for i in self.a.mains() if i not in self.to_b), colors_a.__getitem__)
        free_b = _by_key((j for j in self.b.mains() if j not in self.to_a), colors_b.__getitem__)
        for color, some in free_a.items():
            others = free_b.get(color, [])
            if len(some) == len(others) and self.a.layers[some[0]].outputs:
                for pair in zip(some, others, strict=True):
                    self._add(*pair)

    def _free_carriers(self, side: Side, taken: dict[int, int]) -> Iterable[int]:
        return (i for i in range(len(side.layers)) if not side.is_main[i] and i not in taken and side.layers[i].outputs)

    def _name_a(self, index: int) -> Hashable:
        return self.a.layers[index].name, self.a.loose[index]

    def _name_b(self, index: int) -> Hashable:
        return self.b.layers[index].name, self.b.loose[index]

    def _place_a(self, index: int) -> Hashable:
        ends = (tuple(self.to_b.get(one, -1) for one in near[index]) for near in (self.a.makers, self.a.readers))
        return self._place(self.a, index, *ends)

    def _place_b(self, index: int) -> Hashable:
        ends = (
            tuple(one if one in self.to_a else -1 for one in near[index]) for near in (self.b.makers, self.b.readers)
        )
        return self._place(self.b, index, *ends)

    def _place(self, side: Side, index: int, makers: Sequence[int], readers: Sequence[int]) -> Hashable:
        """Return what two carriers share that do the same between the same layers."""
        layer = side.layers[index]
        dims = side.dims(layer.outputs)
        if side.is_entry(index) and not kinds.is_idle(layer):
            return "input", dims, frozenset(readers)
        if -1 in makers and -1 in readers:
            return side, index
        dtypes = frozenset(tensor.dtype for tensor in layer.outputs) if kinds.is_conversion(layer) else None
        return kinds.family(layer), dims, dtypes, frozenset(makers), frozenset(readers)

    def _neighbours_kept(self, i: int, j: int) -> tuple[int, int]:
        """Return how many matched neighbours of two layers are matched with each other, and of how many."""
        known = kept = 0
        for near_a, near_b in ((self.a.makers[i], self.b.makers[j]), (self.a.readers[i], self.b.readers[j])):
            there = {self.to_b[one] for one in near_a if one in self.to_b}
            back = {one for one in near_b if one in self.to_a}
            known += len(there | back)
            kept += len(there & back)
        return kept, known

    def _may_match(self, i: int, j: int) -> bool:
        if self.a.is_main[i] != self.b.is_main[j] or self.a.loose[i] != self.b.loose[j]:
            return False
        return self._weighs_alike(i, j) and self._writes_alike(i, j)

    def _weighs_alike(self, i: int, j: int) -> bool:
        one, other = self.a.layers[i], self.b.layers[j]
        if not kinds.is_compute(one) or one.weight_count is None or other.weight_count is None:
            return True
        return one.weight_count == other.weight_count

    def _writes_alike(self, i: int, j: int) -> bool:
        """Tell whether conversions make the same type of the same: a Q is no match of a DQ."""
        one, other = self.a.layers[i], self.b.layers[j]
        if not kinds.is_conversion(one):
            return True
        return {tensor.dtype for tensor in one.outputs} == {tensor.dtype for tensor in other.outputs}

    def _add(self, i: int, j: int) -> bool:
        if i in self.to_b or j in self.to_a or not self._weighs_alike(i, j):
            return False
        self.to_b[i], self.to_a[j] = j, i
        return True


def numbered(name: str) -> bool:
    """Tell whether an ONNX node name is one that exporters count up, and so no identity between two exports."""
    return _NUMBERED.fullmatch(name) is not None


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 1.0


def _untold(side: Side, taken: dict[int, int]) -> Iterable[int]:
    return (index for index, layer in enumerate(side.layers) if index not in taken and not layer.outputs)


def _by_key(indices: Iterable[int], key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        found[key(index)].append(index)
    return found


def _once(side: Side, own: Sequence[int]) -> dict[int, int]:
    counts = Counter(own[index] for index in side.mains() if side.layers[index].outputs)
    return {own[index]: index for index in side.mains() if counts[own[index]] == 1}
