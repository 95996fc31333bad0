"""BenchResult: every raw time of one engine, and what was asked and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from trtq.errors import ModelError

FORMAT = "trtq_bench"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class BenchResult:
    """Times of single runs in microseconds, in the order they were taken, warm-up excluded.

    options: how it was measured (warm-up, iterations, order). machine: JSON form of the machine that ran it.
    """

    name: str
    backend: str
    batch: int
    times_us: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    machine: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def __post_init__(self) -> None:
        if not self.times_us or not np.all(np.isfinite(self.times_us)) or min(self.times_us) <= 0:
            raise ModelError(f"benchmark '{self.name}': needs at least one time, all of them finite and above 0 us")
        if self.batch < 1:
            raise ModelError(f"benchmark '{self.name}': the batch is {self.batch}; it must be at least 1")

    @property
    def median_us(self) -> float:
        """The median time of one run."""
        return self.percentile_us(50)

    @property
    def p90_us(self) -> float:
        """The time that 90 % of the runs stay within."""
        return self.percentile_us(90)

    @property
    def p95_us(self) -> float:
        """The time that 95 % of the runs stay within."""
        return self.percentile_us(95)

    @property
    def p99_us(self) -> float:
        """The time that 99 % of the runs stay within."""
        return self.percentile_us(99)

    @property
    def throughput_per_s(self) -> float:
        """Images per second: batch over the mean time, since runs follow each other."""
        return self.batch * 1e6 / float(np.mean(self.times_us))

    def percentile_us(self, percent: float) -> float:
        """Return a percentile, interpolated linearly between the two nearest times."""
        return float(np.percentile(self.times_us, percent))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: raw times, and the figures that follow from them for whoever reads the file."""
        return {
            FORMAT: 1,
            "name": self.name,
            "backend": self.backend,
            "batch": self.batch,
            "times_us": list(self.times_us),
            "options": dict(self.options),
            "machine": dict(self.machine),
            "median_us": self.median_us,
            "p90_us": self.p90_us,
            "p95_us": self.p95_us,
            "p99_us": self.p99_us,
            "throughput_per_s": self.throughput_per_s,
        }


def from_json(document: Any) -> BenchResult:
    """Return the result that `BenchResult.to_json` wrote; raises `ModelError` for anything else."""
    if not isinstance(document, dict) or document.get(FORMAT) != 1:
        raise ModelError("this is not a benchmark result of trtq; measure again with the same version")
    try:
        return BenchResult(
            name=str(document["name"]),
            backend=str(document["backend"]),
            batch=int(document["batch"]),
            times_us=tuple(float(value) for value in document["times_us"]),
            options=dict(document["options"]),
            machine=dict(document["machine"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"this benchmark result is not complete ({error!r}); measure again") from error
