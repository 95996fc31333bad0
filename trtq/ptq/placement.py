"""Where Q/DQ pairs go in a float network: NVIDIA's placement recommendations."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trtq.config import did_you_mean
from trtq.errors import ConfigError, ModelError
from trtq.qdq import reading
from trtq.qdq.groups import joint_of
from trtq.rules.missing_pairs import Place
from trtq.rules.outlook import Outlook, before, data_of, dequantized, is_average_pool
from trtq.rules.tq213_float_island import INT8_BETWEEN_PAIRS

# ConvTranspose stays float: sources disagree about the axis of its weight scales, and its int8 kernels are few.
QUANTIZED = ("Conv", "Gemm", "MatMul")
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


def sites(model: ir.Model, exclude: Sequence[str]) -> list[Site]:
    """Return every operator's input that gets a pair of its own, in graph order; raises as `insert` does."""
    opset = model.graph.opset_imports.get("", 0)
    if opset < PER_CHANNEL_OPSET:
        raise ModelError(f"the network has opset {opset}; per-channel Q/DQ needs {PER_CHANNEL_OPSET}: export it again")
    if any(reading.is_quantize(node) or reading.is_dequantize(node) for node in model.graph):
        raise ModelError("the network holds Q/DQ nodes already; quantize the float network")
    left = excluded(model, exclude)
    weighted = [node for node in model.graph if is_weighted(node) and node not in left]
    order = {node: index for index, node in enumerate(model.graph)}
    quantized = set(weighted)
    adds = [node for node in model.graph if node.op_type == "Add" and node not in left]
    found = [Site(node, 0) for node in weighted]
    found.extend(Site(add, index) for add in adds for index in _residual_inputs(add, quantized, order))
    return sorted(found, key=lambda site: order[site.node])


def enclosable(model: ir.Model) -> list[Place]:
    """Return the float inputs of operators that run in int8 between pairs, where int8 kernels stand around them.

    Those are, in a network whose layers have their pairs, the Mul of a squeeze-and-excitation block, a ReduceMean, and
    the like: what all reads quantized, and what int8 kernels write. Source: NVIDIA's tensorflow-quantization, which
    quantizes both inputs of such a Mul; the float stretches of TQ213.
    """
    outlook = Outlook(model)
    found: list[Place] = []
    for node in model.graph:
        if node.op_type not in INT8_BETWEEN_PAIRS or node.domain not in ("", "ai.onnx") or is_average_pool(node):
            continue
        data, result = data_of(node), node.outputs[0]
        scaled = len(data) < 2 and node.op_type != "ReduceMean"  # by a constant: that fuses with what writes it
        if scaled or before(node) is not None or node in outlook.sums:
            continue
        if outlook.takes(result) and outlook.wants(result) and all(_is_int8(value, outlook) for value in data):
            found.extend(Place(node, value) for value in data if not dequantized(value))
    return found


def _is_int8(value: ir.Value | None, outlook: Outlook) -> bool:
    """Tell whether a pair or an int8 kernel writes `value`, or what it is only a copy of."""
    while value is not None and not dequantized(value):
        node = value.producer()
        if node is None or outlook.in_int8_kernel(node):
            return node is not None
        joint = joint_of(node)
        value = None if joint is None or joint.all_inputs else node.inputs[0]
    return value is not None


def excluded(model: ir.Model, exclude: Sequence[str]) -> dict[ir.Node, str]:
    """Return the nodes that a glob matches, by name or by a tensor that they write, each with its glob.

    Raises `ConfigError` for a glob that matches none.
    """
    names = {node: (*filter(None, [node.name]), *map(reading.name, node.outputs)) for node in model.graph}
    found: dict[ir.Node, str] = {}
    for pattern in exclude:
        matches = [node for node, own in names.items() if any(fnmatch.fnmatchcase(name, pattern) for name in own)]
        if not matches:
            layers = [name for node, own in names.items() if node.op_type in reading.WEIGHTED for name in own]
            hint = did_you_mean(pattern, dict.fromkeys(part for name in layers for part in _meant(name, pattern)))
            known = f"; its layers are {layers[0]} and {len(layers) - 1} more names" if layers else ""
            raise ConfigError(f"exclude '{pattern}' matches no node of the network{hint or known}")
        found.update((node, found.get(node, pattern)) for node in matches)
    return found


def _meant(name: str, pattern: str) -> Iterator[str]:
    """Yield what might have been meant by `pattern`: the name, or for a beginning one of its beginnings."""
    if not pattern.endswith("*"):
        yield name
        return
    for index, letter in enumerate(name):
        if letter in "/." and index:
            yield name[:index] + "*"
            yield name[: index + 1] + "*"


def is_weighted(node: ir.Node) -> bool:
    """Tell whether `node` gets int8 weights: QUANTIZED, data times a constant; `ModelError` for another float type."""
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
    """Return the layer whose result, through normalization and activation, `value` is, where nothing else reads it."""
    uses = 1
    while value is not None and len(value.uses()) == uses and not value.is_graph_output():
        node = value.producer()
        if node is None or node in quantized:
            return node
        value, uses = before(node), 2 if node.op_type == "Mul" else 1
    return None
