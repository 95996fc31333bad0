"""Places where two engines differ: every aligned group in exactly one place, or in the rest that both run alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trtq.compare import aspects
from trtq.compare.blocks import regions
from trtq.compare.difference import DifferenceClass
from trtq.compare.joining import Group
from trtq.compare.sides import Side, is_reformat
from trtq.layers import kinds
from trtq.layers.graph import Layer

INPUT_COPY = "Reformatting CopyNode for Input Tensor"
# These have a tensor of their own behind them, so they stand alone whatever block they are in.
ALONE: tuple[DifferenceClass, ...] = ("double write", "requantize")
INPUT, BLOCK, PLACE = "input", "block", "place"

_Sides = tuple[Side, Side]


@dataclass(frozen=True)
class Entry:
    """A place: its groups in execution order, each with its class (None: alike), and whether it is the input's."""

    groups: tuple[Group, ...]
    classes: tuple[DifferenceClass | None, ...]
    is_input: bool = False
    is_block: bool = False

    def layers(self, side: int) -> tuple[int, ...]:
        """Return the positions of one side's layers, in execution order."""
        return tuple(sorted(index for group in self.groups for index in (group.b if side else group.a)))

    @property
    def whole(self) -> Group:
        """All its layers as one group."""
        return Group(self.layers(0), self.layers(1))


def entries(groups: Sequence[Group], sides: _Sides) -> tuple[Entry, ...]:
    """Return the places in execution order, those that do not differ among them.

    A residual block is one place. A conversion belongs to what writes the tensor that it quantizes, or to what reads
    the tensor that it dequantizes; a copy to the layer that TensorRT made it for. Conversions of the network's inputs
    are a place of their own. Elsewhere a group is a place, with the readers that only read another format because of
    it.
    """
    places = _Places(groups, sides)
    found: dict[Hashable, list[int]] = defaultdict(list)
    for number in range(len(groups)):
        found[places.keys[number]].append(number)
    return tuple(
        Entry(
            tuple(groups[number] for number in numbers),
            tuple(places.classes[number] for number in numbers),
            is_input=isinstance(key, tuple) and key[0] == INPUT,
            is_block=isinstance(key, tuple) and key[0] == BLOCK,
        )
        for key, numbers in found.items()
    )


def layers_of(group: Group, sides: _Sides) -> tuple[list[Layer], list[Layer]]:
    """Return a group's layers of A and of B."""
    return [sides[0].layers[index] for index in group.a], [sides[1].layers[index] for index in group.b]


def is_copy(layer: Layer) -> bool:
    """Tell whether a layer costs a kernel only to write a tensor elsewhere or in another layout."""
    return is_reformat(layer) and not kinds.is_idle(layer)


class _Places:
    """The key of the place that each group belongs to."""

    def __init__(self, groups: Sequence[Group], sides: _Sides) -> None:
        self.groups = groups
        self.sides = sides
        self.homes = [_homes([group.a for group in groups]), _homes([group.b for group in groups])]
        self.regions = regions(groups, sides)
        self.classes = [self._class(group) for group in groups]
        self.hosts: dict[int, int] = {}
        self.keys = [self._key(number) for number in range(len(groups))]
        self._absorb_readers()
        for number, host in self.hosts.items():
            self.keys[number] = self.keys[host]

    def _class(self, group: Group) -> DifferenceClass | None:
        """Return the class of a group; layers that only carry count by how many a place has, unless both have one."""
        a, b = layers_of(group, self.sides)
        if all(map(kinds.is_idle, (*a, *b))) or not (self._mains(group) or (a and b)):
            return None
        return aspects.class_of(a, b)

    def _key(self, number: int) -> Hashable:
        group = self.groups[number]
        if self._mains(group):
            return self._main_key(number)
        side, index = (0, group.a[0]) if group.a else (1, group.b[0])
        here = self.sides[side]
        if not here.makers[index] and here.layers[index].inputs:
            return INPUT, frozenset(self.homes[side][reader] for reader in here.readers[index])
        owner = _owner(here, index)
        if owner is not None:
            self.hosts[number] = self.homes[side][owner]
        return PLACE, number

    def _main_key(self, number: int) -> Hashable:
        if self.classes[number] in ALONE or self.regions[number] is None:
            return PLACE, number
        return BLOCK, self.regions[number]

    def _mains(self, group: Group) -> bool:
        return any(self.sides[0].is_main[index] for index in group.a) or any(
            self.sides[1].is_main[index] for index in group.b
        )

    def _absorb_readers(self) -> None:
        """Put readers that only read another format into the place of what they read, each into the first.

        Residual blocks neither take nor give any, but to tensors that are written twice.
        """
        taken: set[int] = set()
        for number, kind in enumerate(self.classes):
            if kind in (None, "format change") or (kind not in ALONE and self.keys[number] != (PLACE, number)):
                continue
            for reader in self._readers(number):
                stays = kind not in ALONE and self.keys[reader] != (PLACE, reader)
                if self.classes[reader] == "format change" and reader not in taken and not stays:
                    taken.add(reader)
                    self.hosts.pop(reader, None)
                    self.keys[reader] = self.keys[number]

    def _readers(self, number: int) -> tuple[int, ...]:
        found: dict[int, None] = {}
        for side, indices in ((0, self.groups[number].a), (1, self.groups[number].b)):
            for index in indices:
                found.update(dict.fromkeys(self.homes[side][reader] for reader in self.sides[side].consumers[index]))
        return tuple(found)


def _owner(side: Side, index: int) -> int | None:
    layer = side.layers[index]
    dequantizes = kinds.is_conversion(layer) and any(kinds.is_float(tensor) for tensor in layer.outputs)
    makers, readers = side.makers[index], side.readers[index]
    found = readers or makers if dequantizes or layer.name.startswith(INPUT_COPY) else makers or readers
    return found[0] if found else None


def _homes(members: Sequence[Sequence[int]]) -> dict[int, int]:
    return {index: number for number, indices in enumerate(members) for index in indices}
