"""Groups of layers of two engines, n:m: what one engine fused and the other split belongs together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trtq.compare.sides import Side
from trtq.layers import kinds
from trtq.layers.graph import Layer

# A node in more layers than this tells nothing, and comparing all of them would take quadratic time.
COMMON_LAYERS = 16
# A gap between matched layers that is wider holds more than one fused layer.
GAP_LAYERS = 4
# Kernels that TensorRT's graph compiler makes, of whatever operations.
GENERATED_KINDS = ("kgen", "myelin", "fusion")
START, END = "start", "end"

_Node = tuple[int, int]
_Names = Sequence[Sequence[frozenset[str]]]


@dataclass(frozen=True)
class Group:
    """Layers of A and of B, by position in execution order, that compute the same; one side may be empty."""

    a: tuple[int, ...]
    b: tuple[int, ...]


def groups(sides: tuple[Side, Side], to_b: Mapping[int, int], strong: _Names) -> tuple[Group, ...]:
    """Return every layer in exactly one group: the pairs, with what was fused into or split from them."""
    joined = _Joined(sides, strong)
    for i, j in to_b.items():
        joined.match((0, i), (1, j))
    joined.join_by_names()
    joined.join_gaps()
    joined.join_by_numbered_names()
    joined.join_steps()
    joined.join_reshapes()
    return joined.groups()


def holders(names: Iterable[frozenset[str]]) -> dict[str, list[int]]:
    """Return the layers that hold each name; not the names that stand in too many to tell anything."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, layer_names in enumerate(names):
        for name in layer_names:
            found[name].append(index)
    return {name: indices for name, indices in found.items() if len(indices) <= COMMON_LAYERS}


class _Joined:
    """Layers joined so far (union-find with path halving)."""

    def __init__(self, sides: tuple[Side, Side], strong: _Names) -> None:
        self.sides = sides
        self.strong = strong
        self._parent: dict[_Node, _Node] = {}
        self._held: set[_Node] = set()

    def match(self, one: _Node, other: _Node) -> None:
        """Make one group of two."""
        self._held.update((one, other))
        self._parent[self.find(one)] = self.find(other)

    def find(self, node: _Node) -> _Node:
        """Return the node that stands for the group of `node`."""
        while (parent := self._parent.get(node, node)) != node:
            self._parent[node] = self._parent.get(parent, parent)
            node = parent
        return node

    def join_by_names(self) -> None:
        """Join free layers to the layer of the other engine that holds most of their ONNX nodes: it fused them."""
        found = []
        for side, other in ((0, 1), (1, 0)):
            held = holders(self.strong[other])
            for index in self._free(side):
                votes = Counter(j for name in self.strong[side][index] for j in held.get(name, ()))
                if votes:
                    found.append(((side, index), (other, min(votes, key=lambda j: (-votes[j], j)))))
        for one, host in found:
            if self.sides[host[0]].is_main[host[1]]:
                self.match(one, host)

    def join_by_numbered_names(self) -> None:
        """Join free layers without names of their own to a layer that holds a numbered one, where it is next to it."""
        for side, other in ((0, 1), (1, 0)):
            held = holders(self.sides[other].names)
            for index in [one for one in self._free(side) if not self.strong[side][one]]:
                near = {self.find((side, one)) for one in self._near(side, index) if (side, one) in self._held}
                hosts = (j for name in sorted(self.sides[side].names[index]) for j in held.get(name, ()))
                host = next((j for j in hosts if self.find((other, j)) in near), None)
                if host is not None:
                    self.match((side, index), (other, host))

    def join_gaps(self) -> None:
        """Join what is free in both engines between the same matched layers, where it can be the same."""
        gaps = [self._gaps(side) for side in (0, 1)]
        for ends, (some,) in ((ends, found) for ends, found in gaps[0].items() if len(found) == 1):
            others = gaps[1].get(ends, [])
            if len(others) == 1 and self._may_be_one(some, others[0]):
                for one in some[1:]:
                    self.match((0, some[0]), (0, one))
                for other in others[0]:
                    self.match((0, some[0]), (1, other))

    def join_steps(self) -> None:
        """Join a free step between two layers that follow each other in the other engine to the first: it is fused."""
        for side, other in ((0, 1), (1, 0)):
            direct = self._links(other)
            for index in list(self._free(side)):
                makers, readers = self.sides[side].makers[index], self.sides[side].readers[index]
                layer = self.sides[side].layers[index]
                if kinds.is_compute(layer) or len(makers) != 1 or (side, makers[0]) not in self._held:
                    continue
                first = self.find((side, makers[0]))
                if any((first, self.find((side, reader))) in direct for reader in readers):
                    self.match((side, index), (side, makers[0]))

    def join_reshapes(self) -> None:
        """Join a free copy to what reads it, where the other engine reads the same tensor in the other shape."""
        for side, other in ((0, 1), (1, 0)):
            members = self._members(other)
            for index, layer in enumerate(self.sides[side].layers):
                if (side, index) in self._held or not kinds.is_move(layer) or len(layer.outputs) != 1:
                    continue
                written, readers = layer.outputs[0], self.sides[side].readers[index]
                if len(readers) != 1 or len(layer.inputs) != 1 or layer.inputs[0].dims == written.dims:
                    continue
                hosts = members.get(self.find((side, readers[0])), ())
                if math.prod(layer.inputs[0].dims) == math.prod(written.dims) and any(
                    self._reshapes(other, host, written.dims) for host in hosts
                ):
                    self.match((side, index), (side, readers[0]))

    def groups(self) -> tuple[Group, ...]:
        """Return all groups in execution order."""
        members: dict[_Node, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for side in (0, 1):
            for index in range(len(self.sides[side].layers)):
                members[self.find((side, index))][side].append(index)
        found = [Group(tuple(a), tuple(b)) for a, b in members.values()]
        return tuple(sorted(found, key=lambda group: (group.a or group.b, group.b)))

    def _free(self, side: int) -> list[int]:
        return [index for index in self.sides[side].mains() if (side, index) not in self._held]

    def _near(self, side: int, index: int) -> tuple[int, ...]:
        return (*self.sides[side].makers[index], *self.sides[side].readers[index])

    def _gaps(self, side: int) -> dict[Hashable, list[list[int]]]:
        """Return the connected free layers by the groups that they lie between."""
        found: dict[Hashable, list[list[int]]] = defaultdict(list)
        free, seen = set(self._free(side)), set[int]()
        for start in sorted(free):
            if start in seen:
                continue
            seen.add(start)
            gap = [start]
            for index in gap:
                new = [one for one in self._near(side, index) if one in free and one not in seen]
                seen.update(new)
                gap += new
            if len(gap) <= GAP_LAYERS and any(self.sides[side].layers[one].outputs for one in gap):
                found[self._ends(side, gap)].append(sorted(gap))
        return found

    def _ends(self, side: int, gap: Sequence[int]) -> Hashable:
        makers = {one for index in gap for one in self.sides[side].makers[index]}
        readers = {one for index in gap for one in self.sides[side].readers[index]}
        starts = not all(self.sides[side].makers[index] for index in gap)
        ends = not all(self.sides[side].readers[index] for index in gap)
        return (
            frozenset(self.find((side, one)) for one in makers.difference(gap)),
            frozenset(self.find((side, one)) for one in readers.difference(gap)),
            START if starts else "",
            END if ends else "",
        )

    def _may_be_one(self, some: Sequence[int], others: Sequence[int]) -> bool:
        """Tell whether free layers can compute the same: as many weights, or as many convolutions.

        A generated kernel may hold a matrix product that its kind does not tell.
        """
        sides = [[self.sides[side].layers[index] for index in indices] for side, indices in enumerate((some, others))]
        compute = [[layer for layer in layers if kinds.is_compute(layer)] for layers in sides]
        if any(not found and any(map(_is_generated, layers)) for found, layers in zip(compute, sides, strict=True)):
            return True
        counts = [[layer.weight_count for layer in layers] for layers in compute]
        told = [[count for count in one if count is not None] for one in counts]
        if all(len(known) == len(one) for known, one in zip(told, counts, strict=True)):
            return sum(told[0]) == sum(told[1])
        return len(compute[0]) == len(compute[1])

    def _links(self, side: int) -> set[tuple[_Node, _Node]]:
        return {
            (self.find((side, index)), self.find((side, reader)))
            for index in self.sides[side].mains()
            for reader in self.sides[side].readers[index]
            if (side, index) in self._held
        }

    def _members(self, side: int) -> dict[_Node, list[int]]:
        found: dict[_Node, list[int]] = defaultdict(list)
        for index in range(len(self.sides[side].layers)):
            found[self.find((side, index))].append(index)
        return found

    def _reshapes(self, side: int, index: int, dims: tuple[int, ...]) -> bool:
        """Tell whether a layer reads these dimensions of a tensor that was written in others."""
        here = self.sides[side]
        read = [tensor for tensor in here.layers[index].inputs if tensor.dims == dims]
        makers = here.producers[index]
        written = {tensor.dims for maker in makers for tensor in here.layers[maker].outputs}
        return bool(read) and bool(written) and dims not in written


def _is_generated(layer: Layer) -> bool:
    return layer.kind.lower() in GENERATED_KINDS
