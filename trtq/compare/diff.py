"""Compare two layer graphs: what each runs differently, what it costs, and which ONNX tensor is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from trtq.compare import causes
from trtq.compare.align import Group, align, neighbours
from trtq.compare.causes import Cause, Edges, shortened
from trtq.compare.difference import Comparison, Difference, DifferenceClass
from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph, Signals, Tensor
from trtq.layers.signals import traffic_bytes


def compare(
    a: LayerGraph, b: LayerGraph, a_name: str, b_name: str, *, onnx_a: Path | None = None, onnx_b: Path | None = None
) -> Comparison:
    """Return every difference between two engines, the most costly first; costs are B minus A.

    A cost holds the bytes (and the time, where both are profiled) of the layers concerned and of those that read what
    they write. The ONNX files that the engines were built from make causes exact; without them causes name nodes.
    Where one engine is compiled int8 and the other is compiled float, bytes are no cost: TensorRT-RTX's convolutions
    never write int8. Raises `ModelError` for an ONNX file that cannot be read.
    """
    alignment = align(a, b)
    sides = _Side(a, a_name, _edges(onnx_a)), _Side(b, b_name, _edges(onnx_b))
    differing = [(group, kind) for group in alignment.groups if (kind := _class(*_layers(group, sides)))]
    concerned = _with_readers([group for group, _ in differing], alignment.groups, sides)
    bytes_tell = _bytes_tell(a, b)
    differences = [
        _difference(kind, group, whole, sides, bytes_tell)
        for (group, kind), whole in zip(differing, concerned, strict=True)
    ]
    total_us = _total_us(a, b)
    explained_us = sum(one.cost_us for one in differences if one.cost_us is not None)
    return Comparison(
        a=a_name,
        b=b_name,
        aligned_share=alignment.share,
        differences=tuple(sorted(differences, key=_rank)),
        total_us=total_us,
        unexplained_us=None if total_us is None else round(total_us - explained_us, 3),
    )


def signal_table(a: LayerGraph, b: LayerGraph) -> list[tuple[str, int | float | None, int | float | None]]:
    """Return one row a signal: its name, A's figure and B's, None where the origin cannot tell."""
    return [(one.name, getattr(a.signals, one.name), getattr(b.signals, one.name)) for one in fields(Signals)]


class _Side:
    """One engine of a comparison."""

    def __init__(self, graph: LayerGraph, name: str, edges: Edges | None) -> None:
        self.graph = graph
        self.name = name
        self.edges = edges
        self.producers, self.consumers = neighbours(graph.layers)

    def layers(self, indices: Iterable[int]) -> list[Layer]:
        return [self.graph.layers[index] for index in indices]

    def around(self, indices: Sequence[int], near: Sequence[Sequence[int]]) -> list[Layer]:
        return self.layers(dict.fromkeys(other for index in indices for other in near[index]))


_Sides = tuple[_Side, _Side]


@dataclass(frozen=True)
class _Finding:
    """The words of a difference."""

    message: str
    cause: str = ""
    remedy: str = ""


def _edges(onnx: Path | None) -> Edges | None:
    return None if onnx is None else Edges.read(onnx)


def _layers(group: Group, sides: _Sides) -> tuple[list[Layer], list[Layer]]:
    return sides[0].layers(group.a), sides[1].layers(group.b)


def _class(a: Sequence[Layer], b: Sequence[Layer]) -> DifferenceClass | None:
    """Return what two groups of layers, one of them perhaps empty, do differently; None where it is nothing."""
    if _count(kinds.is_conversion, a) != _count(kinds.is_conversion, b):
        return "extra conversion"
    if not a or not b:
        return "only in a" if a else "only in b"
    if _count(kinds.writes_twice, a) != _count(kinds.writes_twice, b):
        return "double write"
    int8_a, int8_b = _runs_int8(a), _runs_int8(b)
    if int8_a != int8_b:
        return "float instead of int8" if int8_a else "int8 instead of float"
    if _count(kinds.requantizes, a) != _count(kinds.requantizes, b):
        return "requantize"
    return "fusion" if len(a) != len(b) else None


def _count(test: Callable[[Layer], bool], layers: Iterable[Layer]) -> int:
    return sum(map(test, layers))


def _runs_int8(layers: Sequence[Layer]) -> bool:
    """Tell whether the group computes on int8; a group without arithmetic does when it writes int8."""
    compute = [layer for layer in layers if kinds.is_compute(layer)]
    if compute:
        return any(kinds.runs_int8(layer) for layer in compute)
    return any(tensor.dtype == "int8" for layer in layers for tensor in layer.outputs)


def _with_readers(differing: Sequence[Group], groups: Sequence[Group], sides: _Sides) -> list[Group]:
    """Widen each differing group by the groups that only read otherwise because of it; none goes to two."""
    home_a = {index: group for group in groups for index in group.a}
    home_b = {index: group for group in groups for index in group.b}
    claimed = set(differing)
    widened = []
    for group in differing:
        near = [home_a[reader] for index in group.a for reader in sides[0].consumers[index]]
        near += [home_b[reader] for index in group.b for reader in sides[1].consumers[index]]
        added = [one for one in dict.fromkeys(near) if one not in claimed and _reads_otherwise(one, sides)]
        claimed.update(added)
        widened.append(Group(_joined([group, *added], "a"), _joined([group, *added], "b")))
    return widened


def _joined(groups: Sequence[Group], side: str) -> tuple[int, ...]:
    return tuple(sorted(index for group in groups for index in getattr(group, side)))


def _reads_otherwise(group: Group, sides: _Sides) -> bool:
    a, b = _layers(group, sides)
    return _reads(a) != _reads(b)


def _reads(layers: Iterable[Layer]) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((tensor.dtype, tensor.dims) for layer in layers for tensor in layer.inputs)


def _difference(kind: DifferenceClass, group: Group, whole: Group, sides: _Sides, bytes_tell: bool) -> Difference:
    a, b = _layers(group, sides)
    whole_a, whole_b = _layers(whole, sides)
    finding = _WORDS[kind](kind, group, sides)
    origins = sides[0].graph.origin, sides[1].graph.origin
    note = "" if origins[0] == origins[1] else f" ({sides[0].name} is {origins[0]}, {sides[1].name} is {origins[1]})"
    return Difference(
        kind=kind,
        onnx_nodes=tuple(dict.fromkeys(name for layer in (*a, *b) for name in layer.onnx_nodes)),
        layers_a=tuple(layer.name for layer in a),
        layers_b=tuple(layer.name for layer in b),
        cost_us=round(_time_us(whole_b) - _time_us(whole_a), 3) if _are_profiled(sides) else None,
        cost_bytes=_cost_bytes(whole_a, whole_b) if bytes_tell else None,
        message=finding.message + note,
        cause=finding.cause,
        remedy=finding.remedy,
    )


def _double_write(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    worse, better, layers, cause = _copies(group, sides, kinds.writes_twice)
    dtypes = " and ".join(tensor.dtype for tensor in _same_dims(layers[0]))
    message = f"{worse.name} writes {shortened(cause.tensors)} twice ({dtypes}), {better.name} once"
    return _Finding(message, cause.text, _remedy(cause, worse))


def _requantize(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    worse, better, _, cause = _copies(group, sides, kinds.requantizes)
    message = f"{worse.name} rounds {shortened(cause.tensors)} to int8 more than once, {better.name} does not"
    # A value that is quantized twice in a row has one copy, and no scales to agree.
    return _Finding(message, cause.text, _remedy(cause, worse) if worse.edges and cause.quantized else _lint(worse))


def _copies(group: Group, sides: _Sides, test: Callable[[Layer], bool]) -> tuple[_Side, _Side, list[Layer], Cause]:
    worse, better, indices = _worse(group, sides, test)
    guilty = [index for index in indices if test(worse.graph.layers[index])]
    layers = worse.layers(guilty)
    makers, readers = worse.around(guilty, worse.producers), worse.around(guilty, worse.consumers)
    return worse, better, layers, causes.double_write(layers, makers, readers, worse.edges)


def _precision(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    floats, ints = (sides[1], sides[0]) if kind == "float instead of int8" else (sides[0], sides[1])
    indices = group.b if kind == "float instead of int8" else group.a
    layers = floats.layers(indices)
    compute = [layer for layer in layers if kinds.is_compute(layer)] or layers
    cause = causes.input_tensors(compute, floats.edges)
    return _Finding(
        f"{floats.name} runs {_nodes(compute)} in float, {ints.name} in int8",
        cause.text,
        f"quantize {shortened(cause.tensors)} in {floats.name}, and the weights that meet it"
        if kinds.is_compute(compute[0])
        else _lint(floats),
    )


def _conversion(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    worse, better, indices = _worse(group, sides, kinds.is_conversion)
    layers = [layer for layer in worse.layers(indices) if kinds.is_conversion(layer)]
    cause = causes.input_tensors(layers, worse.edges)
    return _Finding(
        f"{worse.name} converts {shortened(cause.tensors)} in a kernel of its own, {better.name} does not",
        cause.text,
        _lint(worse),
    )


def _fusion(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    a, b = _layers(group, sides)
    cause = causes.input_tensors(b, sides[1].edges)
    return _Finding(
        f"{sides[0].name} runs {_nodes([*a, *b])} in {len(a)} layers, {sides[1].name} in {len(b)}", cause.text
    )


def _only(kind: DifferenceClass, group: Group, sides: _Sides) -> _Finding:
    side, indices = (sides[0], group.a) if kind == "only in a" else (sides[1], group.b)
    layers = side.layers(indices)
    cause = causes.input_tensors(layers, side.edges)
    return _Finding(f"only {side.name} runs {_nodes(layers)} ({layers[0].kind})", cause.text)


_WORDS: dict[DifferenceClass, Callable[[DifferenceClass, Group, _Sides], _Finding]] = {
    "double write": _double_write,
    "requantize": _requantize,
    "float instead of int8": _precision,
    "int8 instead of float": _precision,
    "extra conversion": _conversion,
    "fusion": _fusion,
    "only in a": _only,
    "only in b": _only,
}


def _worse(group: Group, sides: _Sides, test: Callable[[Layer], bool]) -> tuple[_Side, _Side, tuple[int, ...]]:
    """Return the side with more layers of that test, the other side, and the worse side's layers."""
    count_a, count_b = (_count(test, layers) for layers in _layers(group, sides))
    return (sides[0], sides[1], group.a) if count_a > count_b else (sides[1], sides[0], group.b)


def _lint(side: _Side) -> str:
    return f"trtq lint the ONNX file of {side.name}"


def _remedy(cause: Cause, side: _Side) -> str:
    if cause.float_readers:
        readers, tensors = shortened(cause.float_readers), shortened(cause.tensors)
        return f"quantize the input of {readers} in {side.name} with the scale of {tensors}"
    if side.edges is not None and len(cause.quantized) > 1:
        return f"trtq unify: one scale for {', '.join(cause.quantized)}"
    # Without the ONNX file the readers' quantizers are known, but not whether each of them reads this very tensor.
    quantizers = f" ({', '.join(cause.quantized)})" if cause.quantized else ""
    return f"trtq unify, where scales differ{quantizers}; trtq lint, where a reader has no quantizer"


def _same_dims(layer: Layer) -> list[Tensor]:
    dims = [tensor.dims for tensor in layer.outputs]
    return [tensor for tensor in layer.outputs if dims.count(tensor.dims) > 1]


def _bytes_tell(a: LayerGraph, b: LayerGraph) -> bool:
    if not any(layer.outputs for layer in a.layers) or not any(layer.outputs for layer in b.layers):
        return False
    across_precisions = bool(a.signals.int8_share) != bool(b.signals.int8_share)
    return not (a.origin == b.origin == "compiled" and across_precisions)


def _cost_bytes(a: Sequence[Layer], b: Sequence[Layer]) -> int | None:
    bytes_a, bytes_b = traffic_bytes(a), traffic_bytes(b)
    return None if bytes_a is None or bytes_b is None else bytes_b - bytes_a


def _are_profiled(sides: _Sides) -> bool:
    return all(side.graph.signals.time_us is not None for side in sides)


def _total_us(a: LayerGraph, b: LayerGraph) -> float | None:
    time_a, time_b = a.signals.time_us, b.signals.time_us
    return None if time_a is None or time_b is None else round(time_b - time_a, 3)


def _time_us(layers: Iterable[Layer]) -> float:
    return sum(layer.time_us or 0.0 for layer in layers)


def _rank(one: Difference) -> tuple[bool, float, bool, int]:
    return one.cost_us is None, -abs(one.cost_us or 0.0), one.cost_bytes is None, -abs(one.cost_bytes or 0)


def _nodes(layers: Iterable[Layer]) -> str:
    layers = list(layers)
    names = dict.fromkeys(name for layer in layers for name in layer.onnx_nodes if "quantize" not in name.lower())
    return shortened(list(names) or [layer.name for layer in layers])
