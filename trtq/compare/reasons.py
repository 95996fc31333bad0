"""Why a tensor is float where it could be int8: what stands behind a conversion, read off the topology.

Source of the cases: TensorRT's placement recommendations and the layer tables of the published ResNet18 and
MobileNetV2 engines; the lint rules of the same codes describe them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trtq.compare.blocks import is_join
from trtq.compare.sides import Side
from trtq.layers import kinds
from trtq.layers.graph import Layer, Tensor

RESIDUAL, POOL_READ_TWICE, AVERAGE_POOL, SCALES, INPUT = "TQ201", "TQ206", "TQ208", "TQ103", ""
AVERAGES = ("average", "avgpool", "globalpool", "global_avg", "reducemean")


@dataclass(frozen=True)
class Reason:
    """A sentence's end, the lint rule that would mend it ("" where none does), and the float tensor behind it."""

    text: str
    rule: str
    tensor: str = ""
    reader: int | None = None


def of_conversion(side: Side, index: int) -> Reason | None:
    """Return why a conversion is there, None where the topology does not tell."""
    layer = side.layers[index]
    if any(tensor.dtype == "int8" for tensor in layer.outputs):
        return _of_quantize(side, index)
    return next((reason for reader in side.readers[index] if (reason := _of_float_output(side, reader))), None)


def of_float_output(side: Side, index: int) -> Reason | None:
    """Return why an int8 layer writes float, None where it does not or the topology does not tell."""
    if not any(map(kinds.is_float, side.layers[index].outputs)):
        return None
    if reason := of_join(side, index) or _read_in_float(side, index):
        return reason
    for reader in side.readers[index]:
        if reason := _read_in_float(side, reader) or _pooled_in_float(side, reader):
            pool = node(side.layers[reader])
            return Reason(f"{pool} reads it in float: {reason.text}", reason.rule, reason.tensor, reader)
    return None


def float_joins(side: Side, indices: Iterable[int]) -> tuple[int, ...]:
    """Return the layers that add a float residual to what they compute on int8."""
    return tuple(index for index in indices if _float_residual(side, index) is not None)


def _of_quantize(side: Side, index: int) -> Reason | None:
    makers = side.makers[index]
    if not makers:
        return Reason("the network's input is float", INPUT)
    for maker in makers:
        reason = of_join(side, maker) or _read_in_float(side, maker) or _pooled_in_float(side, maker)
        if reason is not None:
            return reason
    return _of_several_scales(side, index)


def _of_several_scales(side: Side, index: int) -> Reason | None:
    """Return that a tensor is quantized more than once: quantizers of one scale would be one kernel."""
    read = {tensor.name for tensor in side.layers[index].inputs}
    for producer in side.producers[index]:
        beside = [
            side.layers[reader]
            for reader in side.consumers[producer]
            if reader != index and kinds.is_conversion(side.layers[reader])
        ]
        if any(tensor.name in read for layer in beside for tensor in layer.inputs):
            return Reason("its readers quantize it with several scales", SCALES, min(read), producer)
    return None


def of_join(side: Side, index: int) -> Reason | None:
    """Return why a layer adds its residual in float, None where it does not.

    A residual that was quantized and is float again has that from what reads the layer's result.
    """
    residual = _float_residual(side, index)
    if residual is None:
        return _of_sum(side, index)
    undone = any(
        kinds.is_conversion(side.layers[producer]) and residual in side.layers[producer].outputs
        for producer in side.producers[index]
    )
    if undone and (reason := _of_float_output(side, index)):
        return reason
    name = node(side.layers[index])
    return Reason(f"{name} adds {shown(residual)} in float, so its result is float", RESIDUAL, residual.name, index)


def _of_sum(side: Side, index: int) -> Reason | None:
    """Return that a sum is a kernel of its own that adds in float what int8 convolutions write."""
    layer = side.layers[index]
    if kinds.is_compute(layer) or not is_join(side, index) or not all(map(kinds.is_float, layer.inputs)):
        return None
    if not any(
        kinds.runs_int8(side.layers[maker]) and kinds.is_compute(side.layers[maker]) for maker in side.makers[index]
    ):
        return None
    return Reason(f"{node(layer)} adds in float", RESIDUAL, layer.inputs[0].name, index)


def _read_in_float(side: Side, maker: int) -> Reason | None:
    """Return the residual Add that reads in float what the maker writes."""
    written = {tensor.dims for tensor in side.layers[maker].outputs}
    for reader in side.readers[maker]:
        residual = _float_residual(side, reader)
        if residual is not None and residual.dims in written:
            text = f"{node(side.layers[reader])} reads it in float as its residual"
            return Reason(text, RESIDUAL, residual.name, reader)
    return None


def _pooled_in_float(side: Side, maker: int) -> Reason | None:
    layer = side.layers[maker]
    if kinds.family(layer) != "pool" or not (layer.inputs and layer.outputs):
        return None
    if not all(map(kinds.is_float, layer.inputs)):
        return None
    if is_average(layer):
        return Reason(f"{node(layer)} averages in float", AVERAGE_POOL, layer.inputs[0].name, maker)
    return Reason(f"{node(layer)} pools in float", POOL_READ_TWICE, layer.outputs[0].name, maker)


def _of_float_output(side: Side, reader: int) -> Reason | None:
    """Return why a layer that reads a dequantized residual writes float."""
    layer = side.layers[reader]
    if not any(map(kinds.is_float, layer.outputs)):
        return None
    for after in side.readers[reader]:
        behind = side.layers[after]
        if kinds.family(behind) == "pool" and is_average(behind):
            text = f"{node(behind)} averages in float, so {node(layer)} writes float and adds its residual in float"
            return Reason(text, AVERAGE_POOL, behind.inputs[0].name if behind.inputs else "", after)
    return Reason(f"{node(layer)} writes float and adds its residual in float", "", "", reader)


def is_average(layer: Layer) -> bool:
    """Tell whether a pool averages: by its name, or because nothing is left of the map that it reads."""
    words = f"{layer.name} {layer.kind}".lower()
    if any(word in words for word in AVERAGES):
        return True
    read, written = (tensors[0].dims if tensors else () for tensors in (layer.inputs, layer.outputs))
    return len(written) > 2 and all(dim == 1 for dim in written[2:]) and any(dim > 1 for dim in read[2:])


def node(layer: Layer) -> str:
    """Return the node of a layer that a sentence is about: its Add where it has one, else its operation."""
    names = [name for name in layer.onnx_nodes if not _is_constant(name)] or list(layer.onnx_nodes) or [layer.name]
    return next((name for name in names if name.rsplit("/", 1)[-1].lower().startswith("add")), names[0])


def shown(tensor: Tensor) -> str:
    """Return a tensor's name for a sentence: names that the compiler made say nothing."""
    return "its residual" if tensor.name.startswith(("__my", "Reformatted ")) else tensor.name


def _is_constant(name: str) -> bool:
    return name.endswith((".weight", ".bias")) or "quantize" in name.lower() or name.startswith("(Unnamed")


def _float_residual(side: Side, index: int) -> Tensor | None:
    """Return the float residual that a layer adds to an int8 product: its own, or one that a convolution fused."""
    layer = side.layers[index]
    if not is_join(side, index) or not kinds.is_compute(layer) or kinds.runs_int8(layer) is not True:
        return None
    dims = layer.outputs[0].dims
    residuals: Sequence[Tensor] = [tensor for tensor in layer.inputs if tensor.dims == dims and kinds.is_float(tensor)]
    return residuals[0] if residuals and any(tensor.dtype == "int8" for tensor in layer.inputs) else None
