"""What one scale really costs a network: it runs before and after, and both are compared where they were changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.errors import DataError
from trtq.qdq import reading
from trtq.qdq.groups import Member
from trtq.qdq.statistics import Observe, sqnr_db

Values = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class OutputChange:
    """How much an output of the network differs: what is left of it over the difference, and the largest difference."""

    output: str
    sqnr_db: float
    largest: float

    def to_json(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return {"output": self.output, "sqnr_db": round(self.sqnr_db, 3), "largest": self.largest}


@dataclass(frozen=True)
class Measured:
    """Two runs over the same images: the SQNR in dB that each member loses, and how the outputs change.

    A member's SQNR is that of its dequantized values against what its quantizer read in the same run.
    """

    losses_db: tuple[float, ...]
    outputs: tuple[OutputChange, ...]


@dataclass
class _Sum:
    """Powers summed over images: of a signal and of its noise, and the largest noise."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0

    def add(self, signal: npt.NDArray[Any], noisy: npt.NDArray[Any]) -> None:
        difference = np.subtract(noisy, signal, dtype=np.float64)
        self.signal += float(np.square(signal, dtype=np.float64).sum())
        self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0)))

    @property
    def sqnr_db(self) -> float:
        return sqnr_db(self.signal, self.noise)


def measure(before: ir.Model, after: ir.Model, members: Sequence[Member], scale: float, observe: Observe) -> Measured:
    """Run both networks over the images of `observe` and compare them; they differ in the scale of `members` alone.

    Images go through both one after the other, so memory is that of one batch of each.
    Raises `DataError` without images, and what `observe` raises.
    """
    outputs = [reading.name(value) for value in before.graph.outputs]
    tensors = [*outputs, *(name for member in members for name in (member.tensor, member.quantized))]
    names = tuple(dict.fromkeys(tensors))
    noises = [(_Sum(), _Sum()) for _ in members]
    changes = {name: _Sum() for name in outputs}
    count = 0
    for old, new in zip(observe(before, names), observe(after, names), strict=True):
        count += 1
        for member, (noise_before, noise_after) in zip(members, noises, strict=True):
            noise_before.add(old[member.tensor], _dequantized(old, member, member.scale))
            noise_after.add(new[member.tensor], _dequantized(new, member, scale))
        for name in _comparable(old, new, changes):
            changes[name].add(old[name], new[name])
    if not count:
        raise DataError("there are no images to measure on; give at least one")
    return Measured(
        tuple(first.sqnr_db - second.sqnr_db for first, second in noises),
        tuple(OutputChange(name, one.sqnr_db, one.largest) for name, one in changes.items()),
    )


def _dequantized(values: Values, member: Member, scale: float) -> npt.NDArray[Any]:
    return np.multiply(values[member.quantized], scale, dtype=np.float64)


def _comparable(old: Values, new: Values, changes: dict[str, _Sum]) -> Iterator[str]:
    """Yield the outputs that hold numbers of one shape; drop the others: a list of boxes may differ in length."""
    for name in tuple(changes):
        if not np.issubdtype(old[name].dtype, np.floating) or old[name].shape != new[name].shape:
            del changes[name]
        else:
            yield name
