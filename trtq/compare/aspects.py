"""What two groups of layers that compute the same do differently: one class, the weightiest first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from trtq.compare.difference import DifferenceClass
from trtq.compare.sides import carries
from trtq.layers import kinds
from trtq.layers.graph import FLOATS, Layer, Tensor

_WIDE = re.compile(r"\b(two|four|eight|sixteen|thirty-two) wide channel", re.IGNORECASE)
_WIDTHS = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}
_UNTOLD = "unknown"

Test = Callable[[Layer], bool]


def class_of(a: Sequence[Layer], b: Sequence[Layer]) -> DifferenceClass | None:
    """Return what two groups of layers, one of them perhaps empty, do differently; None where it is nothing."""
    if not a or not b:
        return "only in a" if a else "only in b"
    if count(kinds.writes_twice, a) != count(kinds.writes_twice, b):
        return "double write"
    int8_a, int8_b = _runs_int8(a), _runs_int8(b)
    if int8_a is not None and int8_b is not None and int8_a != int8_b:
        return "float instead of int8" if int8_a else "int8 instead of float"
    if count(kinds.requantizes, a) != count(kinds.requantizes, b):
        return "requantize"
    if _steps(a) != _steps(b) or _inputs(a) != _inputs(b):
        return "fusion"
    return "format change" if formats_differ(a, b) else None


def count(test: Test, layers: Iterable[Layer]) -> int:
    """Return how many layers pass a test."""
    return sum(map(test, layers))


def formats_differ(a: Sequence[Layer], b: Sequence[Layer]) -> bool:
    """Tell whether what the layers read or write has another type or layout, where both sides tell them."""
    read = ([tensor for layer in layers for tensor in layer.inputs] for layers in (a, b))
    written = ([tensor for layer in layers for tensor in layer.outputs] for layers in (a, b))
    return _differ(*read) or _differ(*written)


def tactics_differ(a: Sequence[Layer], b: Sequence[Layer]) -> bool:
    """Tell whether the layers run other kernels, where both sides name theirs."""
    names_a, names_b = (sorted(layer.tactic for layer in layers if layer.tactic) for layers in (a, b))
    return bool(names_a) and bool(names_b) and names_a != names_b


def layout(tensor: Tensor) -> str:
    """Return a tensor's layout in a word, "" where its description names only a type: linear, NHWC, CHW32 and so on."""
    text = tensor.format.lower()
    if wide := _WIDE.search(text):
        return f"CHW{_WIDTHS[wide[1].lower()]}"
    if "channel major" in text:
        return "NHWC"
    return "linear" if "row major" in text else ""


def form(tensor: Tensor) -> str:
    """Return a tensor's type and layout in words."""
    return f"{tensor.dtype} {layout(tensor)}".strip()


def _runs_int8(layers: Sequence[Layer]) -> bool | None:
    """Tell whether the group computes on int8; a group without arithmetic does when it writes int8."""
    compute = [layer for layer in layers if kinds.is_compute(layer)]
    if compute:
        found = [kinds.runs_int8(layer) for layer in compute]
        return None if None in found and True not in found else any(found)
    written = [tensor.dtype for layer in layers for tensor in layer.outputs]
    return None if _UNTOLD in written else "int8" in written


def _steps(layers: Sequence[Layer]) -> int:
    return sum(not carries(layer) or kinds.is_move(layer) for layer in layers)


def _inputs(layers: Sequence[Layer]) -> int | None:
    """Return how many tensors a single layer reads besides its own dimensions' copies; None for several layers."""
    if len(layers) != 1 or not kinds.is_compute(layers[0]):
        return None
    return len({tensor.name for tensor in layers[0].inputs})


def _differ(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    both = [*one, *other]
    coarse = any(tensor.dtype == "float" for tensor in both)
    typed = all(tensor.dtype != _UNTOLD for tensor in both)
    placed = all(layout(tensor) for tensor in both)

    def told(tensor: Tensor) -> tuple[str, str]:
        dtype = "float" if coarse and tensor.dtype in FLOATS else tensor.dtype
        return dtype if typed else "", layout(tensor) if placed else ""

    return sorted(map(told, one)) != sorted(map(told, other))
