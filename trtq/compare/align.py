"""Which layers of two engines compute the same part of the network.

ONNX node names are an identity only within one ONNX file, so a match also needs the same kind of operation and equal
output dimensions; numbered names (`Conv_84`) are a hint that comes last. What names leave open, topology decides:
the neighbours of matched layers, then layers whose operation and dimensions occur equally often in both engines.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph

# A name that an exporter counts up: no identity in another export.
_NUMBERED = re.compile(r"[^./]*_\d+")
# A node in more layers than this tells nothing, and comparing all of them would take quadratic time.
COMMON_LAYERS = 16


@dataclass(frozen=True)
class Group:
    """Layers of A and of B, by position in execution order, that compute the same; one side may be empty."""

    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True)
class Alignment:
    """Every layer of A and B in exactly one group, in execution order."""

    groups: tuple[Group, ...]

    @property
    def share(self) -> float:
        """Layers that have a counterpart, of all layers of both engines."""
        total = sum(len(group.a) + len(group.b) for group in self.groups)
        return (
            sum(len(group.a) + len(group.b) for group in self.groups if group.a and group.b) / total if total else 1.0
        )


def align(a: LayerGraph, b: LayerGraph) -> Alignment:
    """Match the layers of two graphs: 1:1 by names and topology, then n:m where one fused what the other split."""
    same_file = a.onnx_sha256 is not None and a.onnx_sha256 == b.onnx_sha256
    sides = _Side(a.layers, same_file), _Side(b.layers, same_file)
    pairs = _Pairs(*sides)
    pairs.match_names(strong=True)
    pairs.spread()
    pairs.match_unique()
    pairs.spread()
    pairs.match_in_order()
    pairs.spread()
    pairs.match_names(strong=False)
    pairs.spread()
    return Alignment(_groups(pairs))


class _Side:
    """One graph with what matching asks of it: each layer's key, names and neighbours."""

    def __init__(self, layers: Sequence[Layer], same_file: bool) -> None:
        self.layers = layers
        self.keys = [_key(layer) for layer in layers]
        self.strong = [
            frozenset(name for name in layer.onnx_nodes if same_file or not numbered(name)) for layer in layers
        ]
        self.names = [frozenset(layer.onnx_nodes) for layer in layers]
        self.producers, self.consumers = neighbours(layers)


@dataclass
class _Pairs:
    """The 1:1 matches found so far."""

    a: _Side
    b: _Side
    to_b: dict[int, int] = field(default_factory=dict)
    to_a: dict[int, int] = field(default_factory=dict)

    def match_names(self, *, strong: bool) -> None:
        """Match free layers of equal key, those with the largest share of ONNX nodes in common first."""
        names_a, names_b = (self.a.strong, self.b.strong) if strong else (self.a.names, self.b.names)
        holders = _holders(frozenset() if j in self.to_a else names for j, names in enumerate(names_b))
        candidates = []
        for i, names in enumerate(names_a):
            if i in self.to_b:
                continue
            for j, common in Counter(j for name in names for j in holders.get(name, ())).items():
                if self.a.keys[i] == self.b.keys[j]:
                    jaccard = common / (len(names) + len(names_b[j]) - common)
                    candidates.append((-jaccard, abs(i - j), i, j))
        for _, _, i, j in sorted(candidates):
            self._add(i, j)

    def match_unique(self) -> None:
        """Match free layers whose key and input dimensions occur once in each graph."""
        once_a, once_b = self._once(self.a, self.to_b), self._once(self.b, self.to_a)
        for key in once_a.keys() & once_b.keys():
            self._add(once_a[key], once_b[key])

    def match_in_order(self) -> None:
        """Match free layers whose key is free equally often in both graphs, in execution order."""
        free_a = _by_key((i for i in range(len(self.a.layers)) if i not in self.to_b), self.a.keys)
        free_b = _by_key((j for j in range(len(self.b.layers)) if j not in self.to_a), self.b.keys)
        for key, some in free_a.items():
            others = free_b.get(key, [])
            if len(some) == len(others) and self.a.layers[some[0]].outputs:
                for pair in zip(some, others, strict=True):
                    self._add(*pair)

    def spread(self) -> None:
        """Match free neighbours of matched layers where they correspond one to one, and theirs in turn."""
        queue = deque(self.to_b.items())
        while queue:
            i, j = queue.popleft()
            for near_a, near_b in (
                (self.a.consumers[i], self.b.consumers[j]),
                (self.a.producers[i], self.b.producers[j]),
            ):
                queue.extend(self._match_neighbours(near_a, near_b))

    def _match_neighbours(self, near_a: Sequence[int], near_b: Sequence[int]) -> list[tuple[int, int]]:
        free_a = _by_key((i for i in near_a if i not in self.to_b), self.a.keys)
        free_b = _by_key((j for j in near_b if j not in self.to_a), self.b.keys)
        found = []
        for key, some in free_a.items():
            others = free_b.get(key, [])
            if len(some) == len(others) <= COMMON_LAYERS:
                found += [pair for pair in zip(some, others, strict=True) if self._add(*pair)]
        return found

    def _once(self, side: _Side, taken: dict[int, int]) -> dict[Hashable, int]:
        keys: dict[Hashable, list[int]] = defaultdict(list)
        for index, layer in enumerate(side.layers):
            if layer.outputs:
                keys[side.keys[index], tuple(tensor.dims for tensor in layer.inputs)].append(index)
        return {key: indices[0] for key, indices in keys.items() if len(indices) == 1 and indices[0] not in taken}

    def _add(self, i: int, j: int) -> bool:
        if i in self.to_b or j in self.to_a:
            return False
        self.to_b[i], self.to_a[j] = j, i
        return True


def numbered(name: str) -> bool:
    """Tell whether an ONNX node name is one that exporters count up, and so no identity between two exports."""
    return _NUMBERED.fullmatch(name) is not None


def neighbours(layers: Sequence[Layer]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return each layer's producers and consumers by position; a name written again is a new tensor from there on."""
    writer: dict[str, int] = {}
    producers: list[tuple[int, ...]] = []
    consumers: list[list[int]] = [[] for _ in layers]
    for index, layer in enumerate(layers):
        sources = dict.fromkeys(writer[tensor.name] for tensor in layer.inputs if tensor.name in writer)
        producers.append(tuple(sources))
        for source in sources:
            consumers[source].append(index)
        writer.update((tensor.name, index) for tensor in layer.outputs)
    return producers, [tuple(indices) for indices in consumers]


def _key(layer: Layer) -> Hashable:
    # As a set: the same tensor written twice has the same dimensions as the tensor written once.
    dtypes = frozenset(tensor.dtype for tensor in layer.outputs) if kinds.is_conversion(layer) else None
    return kinds.family(layer), frozenset(tensor.dims for tensor in layer.outputs), dtypes


def _by_key(indices: Iterable[int], keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        found[keys[index]].append(index)
    return found


def _holders(names: Iterable[frozenset[str]]) -> dict[str, list[int]]:
    holders: dict[str, list[int]] = defaultdict(list)
    for index, layer_names in enumerate(names):
        for name in layer_names:
            holders[name].append(index)
    return {name: indices for name, indices in holders.items() if len(indices) <= COMMON_LAYERS}


def _groups(pairs: _Pairs) -> tuple[Group, ...]:
    clusters = _Clusters()
    for i, j in pairs.to_b.items():
        clusters.join(("a", i), ("b", j))
    sides = (("a", pairs.a, pairs.to_b), ("b", pairs.b, pairs.to_a))
    for (mark, side, taken), (other_mark, other, _) in (sides, sides[::-1]):
        for index, host in _hosts(side, other, taken).items():
            clusters.join((mark, index), (other_mark, host))
    for (mark, side, taken), (other_mark, other, _) in (sides, sides[::-1]):
        for index, hosts in _numbered_hosts(side, other, taken).items():
            near = {clusters.find((mark, one)) for one in (*side.producers[index], *side.consumers[index])}
            for candidate in hosts:
                if clusters.find((other_mark, candidate)) in near:
                    clusters.join((mark, index), (other_mark, candidate))
                    break
    nodes = [("a", i) for i in range(len(pairs.a.layers))] + [("b", j) for j in range(len(pairs.b.layers))]
    return tuple(sorted(clusters.groups(nodes), key=lambda group: (group.a or group.b, group.b)))


_Node = tuple[str, int]


class _Clusters:
    """Layers joined so far (union-find with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[_Node, _Node] = {}

    def find(self, node: _Node) -> _Node:
        """Return the node that stands for the cluster of `node`."""
        while (parent := self._parent.get(node, node)) != node:
            self._parent[node] = self._parent.get(parent, parent)
            node = parent
        return node

    def join(self, one: _Node, other: _Node) -> None:
        """Make one cluster of two."""
        self._parent[self.find(one)] = self.find(other)

    def groups(self, nodes: Iterable[_Node]) -> list[Group]:
        """Return the clusters of these nodes."""
        members: dict[_Node, dict[str, list[int]]] = defaultdict(lambda: {"a": [], "b": []})
        for node in nodes:
            members[self.find(node)][node[0]].append(node[1])
        return [Group(tuple(found["a"]), tuple(found["b"])) for found in members.values()]


def _hosts(side: _Side, other: _Side, taken: dict[int, int]) -> dict[int, int]:
    """Return for free layers the layer of the other graph that holds most of their ONNX nodes: it fused them."""
    holders = _holders(other.strong)
    hosts = {}
    for index in _fusible(side, taken):
        votes = Counter(j for name in side.strong[index] for j in holders.get(name, ()))
        if votes:
            hosts[index] = min(votes, key=lambda j: (-votes[j], j))
    return hosts


def _numbered_hosts(side: _Side, other: _Side, taken: dict[int, int]) -> dict[int, list[int]]:
    """Return for free layers without names of their own the layers that hold the numbered ones: mere candidates."""
    holders = _holders(other.names)
    free = (index for index in _fusible(side, taken) if not side.strong[index])
    return {index: [j for name in sorted(side.names[index]) for j in holders.get(name, ())] for index in free}


def _fusible(side: _Side, taken: dict[int, int]) -> list[int]:
    return [
        index
        for index, layer in enumerate(side.layers)
        if index not in taken and not kinds.is_conversion(layer) and not kinds.is_move(layer)
    ]
