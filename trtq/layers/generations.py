"""One name for one value: engines write a tensor's buffer again, and each generation gets a name of its own.

Loops and Myelin's kernels reuse names. A write after a read starts a new generation: `x`, `x#2`, `x#3`. Without a read
in between, writes are slices of one tensor: TensorRT elides a Concat by letting each branch write its part of a buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from trtq.layers.graph import Layer, Tensor

MAX_SLICES = 64  # writes looked back at for the parts of a Concat whose buffer was read in between

_Dims = tuple[int, ...]


def rename_generations(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], int]:
    """Return layers in execution order with one name for one value, and of how many names there are later generations.

    The first generation, written by a layer or there before, keeps the name.
    """
    buffers: dict[str, _Buffer] = {}
    reads, writes = [], []
    for layer in layers:
        reads.append([_buffer(buffers, tensor).read(tensor.dims) for tensor in layer.inputs])
        writes.append([_buffer(buffers, tensor).write(tensor.dims) for tensor in layer.outputs])
    renamed = tuple(
        replace(layer, inputs=_renamed(layer.inputs, read, buffers), outputs=_renamed(layer.outputs, wrote, buffers))
        for layer, read, wrote in zip(layers, reads, writes, strict=True)
    )
    return renamed, sum(buffer.is_reused for buffer in buffers.values())


@dataclass
class _Buffer:
    """What was written under one name, by generation; generation 0 is what was there before any layer wrote."""

    generations: list[list[_Dims]] = field(default_factory=lambda: [[]])
    was_read: bool = False
    joined: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)

    def read(self, dims: _Dims) -> int:
        self.was_read = True
        if dims not in self.generations[-1][-MAX_SLICES:]:
            self._join_slices(dims)
        return len(self.generations) - 1

    def write(self, dims: _Dims) -> int:
        if self.was_read or len(self.generations) == 1:
            self.generations.append([])
            self.was_read = False
        self.generations[-1].append(dims)
        return len(self.generations) - 1

    def number(self, generation: int) -> int:
        """Return 1 for the first generation that a layer reads or writes, and so on, asked in execution order."""
        root = generation
        while root in self.joined:
            root = self.joined[root]
        while generation != root:
            self.joined[generation], generation = root, self.joined[generation]
        return self.numbers.setdefault(root, len(self.numbers) + 1)

    @property
    def is_reused(self) -> bool:
        return len(self.numbers) > 1

    def _join_slices(self, whole: _Dims) -> None:
        """Make one of the last generations where together they are the slices, along one axis, of what is read now."""
        axes: set[int] = set()
        filled = seen = 0
        for generation in range(len(self.generations) - 1, 0, -1):
            for part in self.generations[generation]:
                seen += 1
                axes.update(_differing_axes(part, whole))
                if len(axes) != 1 or len(part) != len(whole) or seen > MAX_SLICES:
                    return
                filled += part[min(axes)]
            if filled >= whole[min(axes)]:
                if filled == whole[min(axes)]:
                    self.joined.update((later, generation) for later in range(generation + 1, len(self.generations)))
                return


def _buffer(buffers: dict[str, _Buffer], tensor: Tensor) -> _Buffer:
    return buffers.setdefault(tensor.name, _Buffer())


def _renamed(tensors: Sequence[Tensor], generations: Iterable[int], buffers: dict[str, _Buffer]) -> tuple[Tensor, ...]:
    numbers = (buffers[tensor.name].number(one) for tensor, one in zip(tensors, generations, strict=True))
    return tuple(
        tensor if number == 1 else replace(tensor, name=f"{tensor.name}#{number}")
        for tensor, number in zip(tensors, numbers, strict=True)
    )


def _differing_axes(part: _Dims, whole: _Dims) -> list[int]:
    return [axis for axis, (one, all_) in enumerate(zip(part, whole, strict=False)) if one != all_]
