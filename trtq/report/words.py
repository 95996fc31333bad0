"""The words of a picture: short lines on the cards, everything on hover."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from trtq.layers.graph import Layer, Tensor
from trtq.layers.signals import total_time_us, traffic_bytes
from trtq.report.scopes import layer_path, module_path
from trtq.report.wording import bytes_text, dims_text, figure, node_name, operation, printable, shorten

TOOLTIP_CHARACTERS = 2000
TOOLTIP_NODES = 12
TOOLTIP_TENSORS = 8
TOOLTIP_LAYERS = 24
LISTED_CHARACTERS = 64
SHORT_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


def short_name(layer: Layer) -> str:
    """Return what to call a layer on its card: an ONNX node, with its module where the name lacks it."""
    name = node_name(layer) or layer.name
    module = "" if module_path(name) else ".".join(layer_path(layer))
    return printable(f"{module} · {name}" if module else name)


def name(layers: Sequence[Layer]) -> str:
    """Return what to call layers on their card: of several the first and last, from where their modules part."""
    if len(layers) == 1:
        return short_name(layers[0])
    first, last = layer_path(layers[0]), layer_path(layers[-1])
    if not first or not last:
        return f"{short_name(layers[0])} … {short_name(layers[-1])}"
    if first == last:
        return printable(".".join(first))
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return printable(" … ".join(".".join(path[shared:] or path[-1:]) for path in (first, last)))


def types(first: Layer, last: Layer) -> str:
    """Return what goes in and out: fp32 → int8+fp32 1×64×80×80; "" where the file has no tensors."""
    if not first.inputs and not last.outputs:
        return ""
    kinds = [dict.fromkeys(SHORT_DTYPES.get(t.dtype, t.dtype) for t in side) for side in (first.inputs, last.outputs)]
    written = dict.fromkeys(dims_text(tensor.dims) for tensor in last.outputs)
    return f"{'+'.join(kinds[0]) or 'none'} → {'+'.join(kinds[1]) or 'none'} {' '.join(written)}"


def change(layer: Layer) -> str:
    """Return what a conversion does, with its types in full where they differ."""
    sides = [list(dict.fromkeys(tensor.dtype for tensor in side)) for side in (layer.inputs, layer.outputs)]
    return " → ".join("+".join(side) or "?" for side in sides)


def converted(layer: Layer) -> str:
    """Return what a conversion is for: the module whose quantizer it is, else its name."""
    return printable(".".join(module_path(node_name(layer) or layer.name))) or short_name(layer)


def type_text(tensor: Tensor) -> str:
    """Return a tensor's dtype and dimensions."""
    return f"{tensor.dtype} {dims_text(tensor.dims)}"


def tensor_text(tensor: Tensor) -> str:
    """Return a tensor's type, size, format and name."""
    layout = f", {printable(tensor.format)}" if tensor.format else ""
    return f"{type_text(tensor)} ({bytes_text(tensor.size_bytes)}{layout})  {printable(tensor.name)}"


def layer_text(layer: Layer, badges: Sequence[str]) -> str:
    """Return all that is known of a layer, a line each, cut where it is too much for a tooltip."""
    rest = len(layer.onnx_nodes) - TOOLTIP_NODES
    lines = [
        printable(layer.name),
        f"{printable(layer.kind)}{': ' + ' and '.join(badges) if badges else ''}",
        *_tensors("reads", layer.inputs),
        *_tensors("writes", layer.outputs),
        f"traffic {bytes_text(traffic_bytes([layer]))}",
        *([f"time {figure(layer.time_us, 2)} µs"] if layer.time_us is not None else []),
        *([f"tactic {printable(layer.tactic)}"] if layer.tactic else []),
        *(f"ONNX {printable(name)}" for name in layer.onnx_nodes[:TOOLTIP_NODES]),
        *([f"and {rest} more ONNX nodes"] if rest > 0 else []),
    ]
    return shorten("\n".join(lines), TOOLTIP_CHARACTERS)


def group_text(what: str, layers: Sequence[Layer]) -> str:
    """Return what several layers are together, then their names and times or bytes."""
    time_us = total_time_us(layers)
    rest = len(layers) - TOOLTIP_LAYERS
    lines = [
        f"{len(layers)} layers {what}",
        *([f"time {figure(time_us, 1)} µs"] if time_us is not None else []),
        f"traffic {bytes_text(traffic_bytes(layers))}",
        *(_listed(layer) for layer in layers[:TOOLTIP_LAYERS]),
        *([f"and {rest} more"] if rest > 0 else []),
    ]
    return shorten("\n".join(lines), 2 * TOOLTIP_CHARACTERS)


def _listed(layer: Layer) -> str:
    time_us = "" if layer.time_us is None else f", {figure(layer.time_us, 1)} µs"
    name = shorten(short_name(layer), LISTED_CHARACTERS)
    return f"{name}: {shorten(printable(operation(layer)), LISTED_CHARACTERS)}{time_us}"


def _tensors(verb: str, tensors: Sequence[Tensor]) -> list[str]:
    rest = len(tensors) - TOOLTIP_TENSORS
    more = [f"{verb} {rest} more tensors"] if rest > 0 else []
    return [f"{verb} {tensor_text(tensor)}" for tensor in tensors[:TOOLTIP_TENSORS]] + more
