"""Where Q/DQ pairs go in a float network: NVIDIA's placement recommendations."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trtq.errors import ConfigError, ModelError
from trtq.qdq import reading

# ConvTranspose stays float: sources disagree about the axis of its weight scales, and its int8 kernels are few.
QUANTIZED = ("Conv", "Gemm", "MatMul")
SINGLE_INPUT = ("BatchNormalization", "Relu", "Clip", "LeakyRelu", "Dropout", "Identity")
PER_CHANNEL_OPSET = 13


@dataclass(frozen=True)
class Site:
    """An operator's input that gets a Q/DQ pair."""

    node: ir.Node
    index: int

    @property
    def tensor(self) -> str:
        """The name of the tensor that is read there."""
        return reading.name(self.node.inputs[self.index])


def activations(model: ir.Model, exclude: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the tensors whose ranges `insert` needs, each once, in graph order.

    Raises `ConfigError` for a glob in `exclude` that matches no node, `ModelError` for what `insert` refuses.
    """
    return tuple(dict.fromkeys(site.tensor for site in sites(model, exclude)))


def sites(model: ir.Model, exclude: Sequence[str]) -> list[Site]:
    """Return every place of a pair in graph order; raises as `insert` does."""
    opset = model.graph.opset_imports.get("", 0)
    if opset < PER_CHANNEL_OPSET:
        raise ModelError(f"the network has opset {opset}; per-channel Q/DQ needs {PER_CHANNEL_OPSET}: export it again")
    if any(reading.is_quantize(node) or reading.is_dequantize(node) for node in model.graph):
        raise ModelError("the network holds Q/DQ nodes already; quantize the float network")
    left = _excluded(model, exclude)
    weighted = [node for node in model.graph if _is_weighted(node) and node not in left]
    order = {node: index for index, node in enumerate(model.graph)}
    quantized = set(weighted)
    adds = [node for node in model.graph if node.op_type == "Add" and node not in left]
    found = [Site(node, 0) for node in weighted]
    found.extend(Site(add, index) for add in adds for index in _residual_inputs(add, quantized, order))
    return sorted(found, key=lambda site: order[site.node])


def _excluded(model: ir.Model, exclude: Sequence[str]) -> set[ir.Node]:
    names = [(node, node.name or reading.name(node.outputs[0])) for node in model.graph]
    found: set[ir.Node] = set()
    for pattern in exclude:
        matches = [node for node, name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ConfigError(f"exclude '{pattern}' matches no node of the network; see their names with `trtq graph`")
        found.update(matches)
    return found


def _is_weighted(node: ir.Node) -> bool:
    if node.op_type not in QUANTIZED or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return False
    if reading.is_constant(node.inputs[0]) or not reading.is_constant(node.inputs[1]):
        return False
    weight = reading.source(node.inputs[1])
    tensor = None if weight is None else ir.convenience.get_const_tensor(weight)
    if tensor is None or len(tensor.shape) < 2:
        return False
    if tensor.dtype != ir.DataType.FLOAT:
        raise ModelError(f"{reading.label(node)}: its weight is {tensor.dtype}; quantize the float32 network")
    return True


def _residual_inputs(add: ir.Node, quantized: set[ir.Node], order: Mapping[ir.Node, int]) -> Iterator[int]:
    """Yield the inputs of an Add that get Q/DQ: all but one that comes from a convolution read by nothing else.

    Of two such convolutions the later stays unquantized: TensorRT fuses the Add into it. Where there is none, the Add
    runs in int8 by itself if its result is quantized. Source: the residual cases of NVIDIA's tensorflow-quantization.
    """
    if len(add.inputs) != 2 or any(value is None or reading.is_constant(value) for value in add.inputs):
        return
    sources = [_convolution_behind(value, quantized) for value in add.inputs]
    fused = [index for index, node in enumerate(sources) if node is not None]
    if fused:
        kept = max(fused, key=lambda index: order[sources[index] or add])
        yield from (index for index in range(2) if index != kept)
    elif any(user in quantized and index == 0 for user, index in add.outputs[0].uses()):
        yield from range(2)


def _convolution_behind(value: ir.Value | None, quantized: set[ir.Node]) -> ir.Node | None:
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None or node in quantized:
            return node
        if node.op_type not in SINGLE_INPUT:
            return None
        value = node.inputs[0]
    return None
