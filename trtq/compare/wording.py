"""The words of a difference: what is other, which tensor is behind it, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trtq.compare import aspects, causes, reasons
from trtq.compare.blocks import is_join
from trtq.compare.causes import Cause, shortened
from trtq.compare.difference import DifferenceClass
from trtq.compare.entries import is_copy
from trtq.compare.joining import Group
from trtq.compare.remedies import Remedy, modules
from trtq.compare.views import View, Views
from trtq.layers import kinds
from trtq.layers.graph import Layer, Tensor

NOTHING = Remedy("")


@dataclass(frozen=True)
class Words:
    """A sentence, the tensor behind it, the quantizers' module names, and the remedy."""

    message: str
    cause: str = ""
    quantizers: tuple[str, ...] = ()
    remedy: Remedy = NOTHING


def words_of(kind: DifferenceClass, group: Group, views: Views, cost: float) -> Words:
    """Return the words of one class of difference in one group of layers; `cost`: B minus A, in whatever unit."""
    if kind in ("float instead of int8", "int8 instead of float"):
        return _precision(kind, group, views, cost)
    return _WORDS[kind](kind, group, views)


def _double_write(kind: DifferenceClass, group: Group, views: Views) -> Words:
    worse, better, layers, cause = _copies(group, views, kinds.writes_twice)
    dtypes = " and ".join(tensor.dtype for tensor in _same_dims(layers[0]))
    message = f"{worse.name} writes {shortened(cause.tensors)} twice ({dtypes}), {better.name} once"
    return Words(message, cause.text, _quantizers(layers, worse, group, views), _one_scale(cause, worse))


def _requantize(kind: DifferenceClass, group: Group, views: Views) -> Words:
    worse, better, layers, cause = _copies(group, views, kinds.requantizes)
    message = f"{worse.name} rounds {shortened(cause.tensors)} to int8 more than once, {better.name} does not"
    # A value that is quantized twice in a row has one copy, and no scales to agree.
    remedy = _one_scale(cause, worse) if worse.edges and cause.quantized else Remedy(worse.advice.lint())
    return Words(message, cause.text, _quantizers(layers, worse, group, views), remedy)


def _copies(group: Group, views: Views, test: Callable[[Layer], bool]) -> tuple[View, View, list[Layer], Cause]:
    worse, better, indices = _worse(group, views, test)
    guilty = [index for index in indices if test(worse.graph.layers[index])]
    layers = worse.layers(guilty)
    return worse, better, layers, causes.double_write(layers, worse.before(guilty), worse.after(guilty), worse.edges)


def _quantizers(layers: Sequence[Layer], worse: View, group: Group, views: Views) -> tuple[str, ...]:
    indices = group.a if worse is views[0] else group.b
    around = [*layers, *(one for one in worse.after(indices) if not kinds.is_compute(one))]
    return modules(name for layer in around for name in layer.onnx_nodes if causes.is_quantizer(name))


def _precision(kind: DifferenceClass, group: Group, views: Views, cost: float) -> Words:
    floats, ints = (views[1], views[0]) if kind == "float instead of int8" else views
    float_group, int8_group = (group.a, group.b) if floats is views[0] else (group.b, group.a)
    layers = floats.traced(float_group)
    compute = [layer for layer in layers if kinds.is_compute(layer)] or layers
    cause = causes.input_tensors(compute, floats.edges)
    message = f"{floats.name} runs {_nodes(compute)} in float, {ints.name} in int8"
    writing = (reasons.of_float_output(ints.side, index) for index in int8_group)
    if why := next((reason for reason in writing if reason is not None), None):
        message += f" but writes float, because {why.text}"
    names = [name for layer in ints.layers(int8_group) for name in layer.onnx_nodes]
    quantizers = modules(filter(causes.is_quantizer, names), names)
    is_dearer = cost < 0 if ints is views[0] else cost > 0
    if is_dearer and why is not None and why.rule:
        remedy = ints.advice.for_tensors([why.tensor]) or Remedy(ints.advice.fix(why.rule), why.rule)
        return Words(message, cause.text, quantizers, remedy)
    return Words(message, cause.text, quantizers, _to_int8(compute, cause, floats))


def _to_int8(layers: Sequence[Layer], cause: Cause, floats: View) -> Remedy:
    if remedy := floats.advice.for_tensors(cause.tensors):
        return remedy
    is_float = not floats.graph.signals.int8_share
    if kinds.is_compute(layers[0]):
        sentence = f"quantize {shortened(cause.tensors)} in {floats.name}, and the weights that meet it"
        return Remedy(f"{sentence}: {floats.advice.quantize()}" if is_float else sentence)
    if is_float:  # the linter has nothing to say of a file without Q/DQ
        return Remedy(floats.advice.quantize())
    code = reasons.AVERAGE_POOL if any(map(reasons.is_average, layers)) else ""
    return Remedy(floats.advice.fix(code), code) if code else Remedy(floats.advice.lint())


def _conversion(kind: DifferenceClass, group: Group, views: Views) -> Words:
    worse, better, indices = _worse(group, views, kinds.is_conversion)
    found = [index for index in indices if kinds.is_conversion(worse.graph.layers[index])]
    layers = worse.layers(found)
    cause = causes.input_tensors(worse.traced(found), worse.edges)
    why = next((reason for index in found if (reason := reasons.of_conversion(worse.side, index))), None)
    because = f", because {why.text}" if why is not None else ""
    count = "a kernel of its own" if len(found) == 1 else f"{len(found)} kernels of their own"
    message = f"{worse.name} converts {shortened(cause.tensors)} in {count}, {better.name} does not{because}"
    readers = [name for layer in worse.after(found) for name in layer.onnx_nodes]
    nodes = [name for layer in layers for name in layer.onnx_nodes]
    return Words(message, cause.text, modules(nodes, readers), _of_conversion(layers, cause, why, worse))


def _of_conversion(layers: Sequence[Layer], cause: Cause, why: reasons.Reason | None, worse: View) -> Remedy:
    written = [tensor.name for layer in layers for tensor in layer.outputs]
    behind = (why.tensor,) if why is not None and why.tensor else ()
    if remedy := worse.advice.for_tensors((*written, *cause.tensors, *behind)):
        return remedy
    if why is not None and why.rule == reasons.INPUT and not why.tensor and why.reader is None:
        return Remedy("none: an int8 engine converts what it is fed once")
    if why is not None and why.rule and not worse.advice.is_certain:
        return Remedy(worse.advice.unify() if why.rule == reasons.SCALES else worse.advice.fix(why.rule), why.rule)
    return Remedy(worse.advice.lint())


def _reformat(kind: DifferenceClass, group: Group, views: Views) -> Words:
    worse, better, indices = _worse(group, views, is_copy)
    found = [index for index in indices if is_copy(worse.graph.layers[index])]
    layers = worse.layers(found)
    cause = causes.input_tensors(worse.traced(found), worse.edges)
    tensors = causes.named_tensors(layers) or cause.tensors or tuple(layer.name for layer in layers)
    changes = ", ".join(dict.fromkeys(_change(layer) for layer in layers if layer.inputs and layer.outputs))
    forms = f" ({changes})" if changes else ""
    message = f"{worse.name} copies {shortened(tensors)}{forms}, {better.name} does not"
    return Words(message, ", ".join(tensors) if layers[0].inputs else "")


def _change(layer: Layer) -> str:
    return f"{aspects.form(layer.inputs[0])} to {aspects.form(layer.outputs[0])}"


def _fusion(kind: DifferenceClass, group: Group, views: Views) -> Words:
    a, b = views[0].layers(group.a), views[1].layers(group.b)
    cause = causes.input_tensors(views[1].traced(group.b), views[1].edges)
    if len(a) != len(b):
        counts = f"in {len(a)} layers, {views[1].name} in {len(b)}"
        return Words(f"{views[0].name} runs {_nodes([*a, *b])} {counts}", cause.text)
    joins = [_joining(view, indices) for view, indices in zip(views, (group.a, group.b), strict=True)]
    if all(joins):
        message = f"{views[0].name} adds the residual within {joins[0]}, {views[1].name} within {joins[1]}"
        return _with_float_joins(Words(message, cause.text), group, views)
    read = [len({tensor.name for layer in side for tensor in layer.inputs}) for side in (a, b)]
    more, fewer = (views[0], views[1]) if read[0] > read[1] else (views[1], views[0])
    return Words(f"{more.name} fuses more into {_nodes([*a, *b])} than {fewer.name} does", cause.text)


def _joining(view: View, indices: Sequence[int]) -> str:
    """Return the convolution that a residual is added within, "" where none is."""
    joins = [view.graph.layers[index] for index in indices if is_join(view.side, index)]
    return shortened([_convolution(layer) for layer in joins])


def _convolution(layer: Layer) -> str:
    named = next((name.removesuffix(".weight") for name in layer.onnx_nodes if name.endswith(".weight")), None)
    return named or next((name for name in layer.onnx_nodes if "quantize" not in name.lower()), layer.name)


def _format(kind: DifferenceClass, group: Group, views: Views) -> Words:
    a, b = views[0].layers(group.a), views[1].layers(group.b)
    message = f"{_nodes([*a, *b])}: {views[0].name} {_forms(a)}, {views[1].name} {_forms(b)}"
    cause = causes.input_tensors(views[1].traced(group.b), views[1].edges)
    return _with_float_joins(Words(message, cause.text), group, views)


def _with_float_joins(words: Words, group: Group, views: Views) -> Words:
    """Return the words with the residual that one engine adds in float to an int8 product, where one does."""
    found = [reasons.float_joins(view.side, indices) for view, indices in zip(views, (group.a, group.b), strict=True)]
    if bool(found[0]) == bool(found[1]):
        return words
    view, joins = (views[0], found[0]) if found[0] else (views[1], found[1])
    layers = view.traced(joins)
    added = ", ".join(reasons.node(layer) for layer in layers)
    residuals = tuple(_float_inputs(layers))
    why = reasons.of_join(view.side, joins[0])
    remedy = view.advice.for_tensors((*residuals, *((why.tensor,) if why else ())))
    if remedy is None and not view.advice.is_certain and why is not None and why.rule:
        remedy = Remedy(view.advice.fix(why.rule), why.rule)
    message = f"{words.message}; {added} of {view.name} adds a float residual"
    return Words(message, ", ".join(residuals), (), remedy or NOTHING)


def _float_inputs(layers: Iterable[Layer]) -> Iterable[str]:
    return dict.fromkeys(tensor.name for layer in layers for tensor in layer.inputs if kinds.is_float(tensor))


def _forms(layers: Sequence[Layer]) -> str:
    read = dict.fromkeys(aspects.form(tensor) for layer in layers for tensor in layer.inputs)
    written = dict.fromkeys(aspects.form(tensor) for layer in layers for tensor in layer.outputs)
    return f"{' | '.join(read)} → {' | '.join(written)}"


def _tactic(kind: DifferenceClass, group: Group, views: Views) -> Words:
    tactics = [dict.fromkeys(layer.tactic for layer in view.layers(indices) if layer.tactic) for view, indices in
               ((views[0], group.a), (views[1], group.b))]  # fmt: skip
    nodes = _nodes([*views[0].layers(group.a), *views[1].layers(group.b)])
    names = [shortened(tuple(one)) or "another" for one in tactics]
    message = f"{nodes}: same tensors, other kernels: {views[0].name} {names[0]}, {views[1].name} {names[1]}"
    return Words(message, causes.input_tensors(views[1].layers(group.b), views[1].edges).text)


def _only(kind: DifferenceClass, group: Group, views: Views) -> Words:
    view, indices = (views[0], group.a) if kind == "only in a" else (views[1], group.b)
    layers = view.traced(indices)
    cause = causes.input_tensors(layers, view.edges)
    return Words(f"only {view.name} runs {_nodes(layers)} ({layers[0].kind})", cause.text)


_WORDS: dict[DifferenceClass, Callable[[DifferenceClass, Group, Views], Words]] = {
    "double write": _double_write,
    "requantize": _requantize,
    "extra conversion": _conversion,
    "extra reformat": _reformat,
    "fusion": _fusion,
    "format change": _format,
    "other tactic": _tactic,
    "only in a": _only,
    "only in b": _only,
}


def _worse(group: Group, views: Views, test: Callable[[Layer], bool]) -> tuple[View, View, tuple[int, ...]]:
    """Return the side with more layers of that test, the other side, and the worse side's layers."""
    counts = [sum(map(test, view.layers(indices))) for view, indices in zip(views, (group.a, group.b), strict=True)]
    return (views[0], views[1], group.a) if counts[0] > counts[1] else (views[1], views[0], group.b)


def _one_scale(cause: Cause, worse: View) -> Remedy:
    tensors = (*cause.tensors, *cause.quantized)
    if cause.float_readers:
        readers, written = shortened(cause.float_readers), shortened(cause.tensors)
        sentence = f"quantize the input of {readers} in {worse.name} with the scale of {written}"
        found = worse.advice.for_tensors(tensors)
        return Remedy(f"{sentence}: {found.text}", found.finding, found.group) if found else Remedy(sentence)
    if worse.edges is not None and len(cause.quantized) > 1:
        found = worse.advice.for_tensors(cause.quantized)
        group = found.group if found is not None and found.group else cause.quantized
        scales = f"one scale for {', '.join(cause.quantized)}"
        return Remedy(f"{worse.advice.unify()}: {scales}", found.finding if found else "", group)
    # Without the ONNX file the readers' quantizers are known, but not whether each of them reads this very tensor.
    quantizers = f" ({', '.join(cause.quantized)})" if cause.quantized else ""
    unify, lint = worse.advice.unify(), worse.advice.lint()
    return Remedy(f"{unify}, where scales differ{quantizers}; {lint}, where a reader has no quantizer")


def _same_dims(layer: Layer) -> list[Tensor]:
    dims = [tensor.dims for tensor in layer.outputs]
    return [tensor for tensor in layer.outputs if dims.count(tensor.dims) > 1]


def _nodes(layers: Iterable[Layer]) -> str:
    layers = list(layers)
    names = dict.fromkeys(name for layer in layers for name in layer.onnx_nodes if "quantize" not in name.lower())
    return shortened(list(names) or list(dict.fromkeys(layer.name for layer in layers)))
