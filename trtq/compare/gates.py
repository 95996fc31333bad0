"""Gates: what an engine must not be, said in signals, for CI."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from trtq.compare.subjects import subject
from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.layers.graph import LayerGraph, Signals

FUSED = "conversions>1"
SIGNALS = tuple(one.name for one in fields(Signals))
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_GATE = re.compile(rf"\s*(\w+)\s*({'|'.join(COMPARISONS)})\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Gate:
    """One condition that fails: `signal` `comparison` `limit`."""

    signal: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.signal}{self.comparison}{self.limit:g}"

    def failed(self, graph: LayerGraph, name: str) -> bool:
        """Tell whether the engine is what it must not be; raises `ConfigError` where its origin has no such signal."""
        value = getattr(graph.signals, self.signal)
        if value is None:
            raise ConfigError(f"gate '{self}': {name} has no signal '{self.signal}' ({graph.origin}); choose another")
        return COMPARISONS[self.comparison](value, self.limit)


def parse(text: str) -> tuple[Gate, ...]:
    """Return the gates in `conversions>0,int8_share<0.95`.

    Raises `ConfigError` for an unknown signal, or what is no condition.
    """
    return tuple(_gate(part) for part in text.split(","))


def failures(graph: LayerGraph, name: str, gates: tuple[Gate, ...]) -> tuple[str, ...]:
    """Return a sentence for each gate that the engine fails; raises `ConfigError` as `Gate.failed` does."""
    return tuple(
        f"{name}: {gate.signal} is {getattr(graph.signals, gate.signal):g} ({graph.origin}), fails on {gate}"
        for gate in gates
        if gate.failed(graph, name)
    )


def assert_fused(path: Path | str, fail_on: str = FUSED, *, mode: str | None = None) -> None:
    """Fail a test where an engine's signals are what they must not be; for pytest and the like.

    path: a layer file, an engine beside one, the folder of a built mode, a recipe, or an ONNX file, whose layers are
    then predicted. mode: which mode of a recipe, or how an ONNX file is predicted. fail_on: gates as
    `trtq diff --fail-on` takes them; by default, any conversion left besides the input's own.
    Raises `AssertionError` with a line for each gate that fails, `ConfigError` and `ModelError`.
    """
    found = failures(subject(Path(path), mode), str(path), parse(fail_on))
    assert not found, "\n".join(found)


def _gate(text: str) -> Gate:
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(f"gate '{text.strip()}' is no condition; write one as in conversions>0 or int8_share<0.95")
    signal, comparison, limit = match.groups()
    if signal not in SIGNALS:
        hint = did_you_mean(signal, SIGNALS) or f"; signals are {', '.join(SIGNALS)}"
        raise ConfigError(f"gate '{text.strip()}': there is no signal '{signal}'{hint}")
    try:
        return Gate(signal, comparison, float(limit))
    except ValueError:
        raise ConfigError(f"gate '{text.strip()}': '{limit}' is not a number") from None
