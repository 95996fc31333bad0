"""What makes a layer worth a look, in the words of the signals."""

from __future__ import annotations

from trtq.layers import kinds
from trtq.layers.graph import Layer, Origin

CONVERSION = "conversion"
REFORMAT_WORDS = ("reformat", "copy")


def marks(layer: Layer, origin: Origin) -> tuple[str, ...]:
    """Return the badges of a layer; () for most.

    As the signals do: "double write" and "requantize" can be told of compiled kernels alone, "conversion" of others.
    """
    if origin != "compiled":
        return (CONVERSION,) if kinds.is_conversion(layer) else ()
    found = {"double write": kinds.writes_twice(layer), "requantize": kinds.requantizes(layer)}
    return tuple(badge for badge, holds in found.items() if holds)


def only_moves(layer: Layer) -> bool:
    """Tell whether a layer computes nothing: it reformats, copies, slices or transposes what others wrote."""
    return not kinds.is_conversion(layer) and (
        kinds.is_move(layer) or any(word in layer.kind.lower() for word in REFORMAT_WORDS)
    )


def passes_on(layer: Layer) -> bool:
    """Tell whether a layer leaves the network's values as they are, but for their type, scale or place."""
    return kinds.is_conversion(layer) or only_moves(layer)
