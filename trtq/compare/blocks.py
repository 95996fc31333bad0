"""Residual blocks of an engine, from its topology alone.

A join is a layer that reads a tensor of its output's dimensions beside another one (a residual Add, alone or fused into
a convolution). Its block is what lies between the join and its immediate dominator: the layer that everything on the
way to the join passes. Only blocks without another join inside count, so that no block holds two: the long skips of a
U-Net or a pyramid make none.

Source of the dominators: Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", 2001; without cycles one
pass in topological order is enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from trtq.compare.joining import Group
from trtq.compare.sides import Side
from trtq.layers.graph import Layer

ROOT = -1
# A fork and a join that are further apart than this are no block.
BLOCK_LAYERS = 64


def blocks(side: Side) -> list[int | None]:
    """Return for each layer the join of its block, None where it stands in none."""
    dominators = _dominators(side)
    joins = {index for index in range(len(side.layers)) if is_join(side, index)}
    found: list[int | None] = [None] * len(side.layers)
    for join in sorted(joins):
        members = _between(side, dominators[join], join, joins)
        for index in members:
            found[index] = join
    return found


def is_join(side: Side, index: int) -> bool:
    """Tell whether a layer adds a residual: a tensor of its output's dimensions, from another layer than the rest."""
    layer = side.layers[index]
    if len(layer.inputs) < 2 or len(layer.outputs) == 0 or len(side.producers[index]) < 2 or not side.is_main[index]:
        return False
    dims = layer.outputs[0].dims
    return any(tensor.dims == dims for tensor in layer.inputs) and not _gates(layer, dims)


def regions(groups: Sequence[Group], sides: tuple[Side, Side]) -> list[int | None]:
    """Return for each group the residual block that it stands in: A's, or else B's, one block one number.

    A block of B is the block of A with which it shares most groups; a group that reaches into two blocks is in none.
    """
    own = [blocks(side) for side in sides]
    found_a = [_only(own[0][index] for index in group.a) for group in groups]
    found_b = [_only(own[1][index] for index in group.b) for group in groups]
    counterpart = _counterparts(found_a, found_b)
    offset = len(sides[0].layers)
    merged: list[int | None] = []
    for one, other in zip(found_a, found_b, strict=True):
        there = None if other is None else counterpart.get(other, offset + other)
        merged.append(there if one is None else one if there in (None, one) else None)
    return merged


def _gates(layer: Layer, dims: tuple[int, ...]) -> bool:
    """Tell whether the layer scales a map by one number a channel, as squeeze-and-excitation does."""
    others = [tensor.dims for tensor in layer.inputs if tensor.dims != dims]
    whole = len(layer.inputs) - len(others)
    return whole == 1 and bool(others) and all(_is_point(one, dims) for one in others)


def _is_point(dims: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(dim == 1 for dim in dims[2:]) and any(dim > 1 for dim in wanted[2:])


def _dominators(side: Side) -> list[int]:
    """Return each layer's immediate dominator; ROOT stands before all inputs."""
    found: list[int] = []
    depths: list[int] = []

    def common(one: int, other: int) -> int:
        while one != other:
            if ROOT in (one, other):
                return ROOT
            if depths[one] >= depths[other]:
                one = found[one]
            else:
                other = found[other]
        return one

    for index, layer in enumerate(side.layers):
        above = list(side.producers[index])
        written = {tensor.name for producer in above for tensor in side.layers[producer].outputs}
        dominator = above[0] if above and all(tensor.name in written for tensor in layer.inputs) else ROOT
        for producer in above[1:]:
            dominator = common(dominator, producer)
        found.append(dominator)
        depths.append(0 if dominator == ROOT else depths[dominator] + 1)
    return found


def _between(side: Side, dominator: int, join: int, joins: set[int]) -> list[int]:
    """Return the layers between the two and the join; none where another join, or too many layers, lie between."""
    members, waiting = {join}, [join]
    while waiting:
        for producer in side.producers[waiting.pop()]:
            if producer == dominator or producer in members:
                continue
            if producer in joins or len(members) > BLOCK_LAYERS:
                return []
            members.add(producer)
            waiting.append(producer)
    return sorted(members)


def _only(blocks_of: Iterable[int | None]) -> int | None:
    found = {one for one in blocks_of if one is not None}
    return found.pop() if len(found) == 1 else None


def _counterparts(found_a: Sequence[int | None], found_b: Sequence[int | None]) -> dict[int, int]:
    """Return for each block of B the one of A that it is, one to one, those with most groups in common first."""
    votes = Counter((b, a) for a, b in zip(found_a, found_b, strict=True) if a is not None and b is not None)
    counterpart: dict[int, int] = {}
    taken: set[int] = set()
    for (b, a), _ in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        if b not in counterpart and a not in taken:
            counterpart[b] = a
            taken.add(a)
    return counterpart
