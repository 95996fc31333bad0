"""What makes a layer worth a look, in the words of the signals."""

from __future__ import annotations

from trtq.layers import kinds
from trtq.layers.graph import Layer, Origin


def marks(layer: Layer, origin: Origin) -> tuple[str, ...]:
    """Return the badges of a layer; () for most.

    As the signals do: "double write" and "requantize" can be told of compiled kernels alone, "conversion" of others.
    """
    if origin != "compiled":
        return ("conversion",) if kinds.is_conversion(layer) else ()
    found = {"double write": kinds.writes_twice(layer), "requantize": kinds.requantizes(layer)}
    return tuple(badge for badge, holds in found.items() if holds)
