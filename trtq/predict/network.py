"""A Q/DQ network as the optimizer sees it: operators between activations; weights, shapes and casts folded away."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trtq.layers.graph import DType
from trtq.qdq import reading
from trtq.qdq.groups import joint_of

ScaleKey = tuple[Hashable, ...]

# Where Q was seen to move backward (passes SplitQAcrossPrecedingFanIn and VanillaSwapWithFollowingQ in verbose logs
# of TensorRT 8.4 and 8.5); Split is lowered to Slice, Squeeze and Unsqueeze to Shuffle. In a published ResNet50 a Pad
# in front of a quantized MaxPool ran in int8, and the Pad of the network's input did not.
CROSSED_BY_Q = frozenset(
    {"Concat", "MaxPool", "Slice", "Split", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize",
     "Upsample", "Pad"}
)  # fmt: skip
# Where DQ moves forward: seen on Transpose and Reshape (pass VanillaSwapWithPreceedingDQ), documented for MaxPool as
# the mirror of Q's move, and for whatever keeps the largest magnitude, around which TensorRT adds missing Q and DQ.
CROSSED_BY_DQ = CROSSED_BY_Q - {"Concat", "Pad"}
# Operators whose result's shape hangs on values.
OF_DATA = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress", "If", "Loop"})
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
TRANSPARENT = frozenset({"Identity", "Dropout"})
FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
DTYPES: dict[ir.DataType | None, DType] = {
    **dict.fromkeys(FLOAT_TYPES, "float"), ir.DataType.INT8: "int8", ir.DataType.UINT8: "uint8",
    ir.DataType.FLOAT8E4M3FN: "fp8", ir.DataType.INT32: "int32", ir.DataType.INT64: "int64", ir.DataType.BOOL: "bool",
}  # fmt: skip


@dataclass(eq=False, repr=False)
class Activation:
    """A tensor between operators, and every (operator, input index) that reads it."""

    name: str
    dims: tuple[int, ...]
    dtype: DType
    producer: Op | None = None
    is_output: bool = False
    uses: dict[tuple[Op, int], None] = field(default_factory=dict)
    converters: dict[tuple[str, ScaleKey], Op] = field(default_factory=dict)

    def only_user(self) -> Op | None:
        """Return the operator that alone reads this tensor, through one input; None for a network output."""
        if self.is_output or len(self.uses) != 1:
            return None
        return next(iter(self.uses))[0]

    def is_dead(self) -> bool:
        """Tell whether nothing reads this tensor."""
        return not self.uses and not self.is_output


@dataclass(eq=False, repr=False)
class Op:
    """An operator with its activation inputs alone.

    nodes: the ONNX nodes that it stands for. written: the ONNX tensors that it writes, whatever they become.
    per_channel_constant, uniform_constant: it computes with a constant of one value a channel, or of one value.
    cloned: it is a Q that a Concat's Q was split into.
    """

    kind: str
    order: int
    nodes: list[str]
    written: tuple[str, ...] = ()
    inputs: list[Activation] = field(default_factory=list)
    outputs: list[Activation] = field(default_factory=list)
    scale: ScaleKey = ()
    per_tensor: bool = False
    int8_weight: bool = False
    crossed_by_q: bool = False
    crossed_by_dq: bool = False
    per_channel_constant: bool = False
    uniform_constant: bool = False
    depthwise: bool = False
    cloned: bool = False
    removed: bool = False

    @property
    def is_quantize(self) -> bool:
        """Whether this is a Q on an activation."""
        return self.kind == reading.QUANTIZE

    @property
    def is_dequantize(self) -> bool:
        """Whether this is a DQ on an activation."""
        return self.kind == reading.DEQUANTIZE

    def read(self, index: int, activation: Activation) -> None:
        """Make input `index` read `activation`."""
        if index < len(self.inputs):
            self.inputs[index].uses.pop((self, index))
            self.inputs[index] = activation
        else:
            self.inputs.append(activation)
        activation.uses[(self, index)] = None

    def write(self, index: int, activation: Activation) -> None:
        """Make output `index` write `activation`."""
        if index < len(self.outputs):
            self.outputs[index] = activation
        else:
            self.outputs.append(activation)
        activation.producer = self

    def remove(self) -> None:
        """Take the operator out of the network; what it wrote must have been moved before."""
        self.removed = True
        for index, activation in enumerate(self.inputs):
            activation.uses.pop((self, index))
            if activation.converters.get((self.kind, self.scale)) is self:
                del activation.converters[(self.kind, self.scale)]


@dataclass
class Network:
    """All operators; `notes` tell what of the file lies outside the rules.

    is_static: whether TensorRT knows every shape but the batch when it builds, also where shape inference does not.
    """

    ops: list[Op]
    notes: list[str]
    names: set[str]
    is_static: bool = True

    def converter(self, like: Op, source: Activation, target: Activation | None = None, *, cloned: bool = False) -> Op:
        """Return the Q or DQ on `source` that equals `like`, made if there is none yet.

        `target` is the tensor that a new one writes; without it a new tensor is made. `cloned` marks a new one.
        """
        found = source.converters.get((like.kind, like.scale))
        if found is not None and target is None:
            found.nodes.extend(like.nodes)
            found.cloned = found.cloned and cloned
            return found
        op = Op(like.kind, like.order, list(like.nodes), scale=like.scale, per_tensor=like.per_tensor, cloned=cloned)
        op.read(0, source)
        op.write(0, target or self.quantized(source, like.outputs[0].dtype))
        source.converters.setdefault((op.kind, op.scale), op)
        self.ops.append(op)
        return op

    def quantized(self, activation: Activation, dtype: DType) -> Activation:
        """Return a new tensor: `activation` after a Q."""
        name = f"{activation.name}_quantized"
        while name in self.names:
            name += "_"
        self.names.add(name)
        return Activation(name, activation.dims, dtype)


@dataclass(frozen=True)
class Folded:
    """A value that does not depend on activations: whether a DQ made it, and the Q and DQ nodes behind it."""

    dequantized: bool = False
    nodes: tuple[str, ...] = ()


def read(model: ir.Model) -> Network:
    """Return the network of `model`, which is left as it is."""
    return _Reader(_with_shapes(model)).network()


def _with_shapes(model: ir.Model) -> ir.Model:
    missing = any(value.shape is None or value.dtype is None for node in model.graph for value in node.outputs)
    if not missing:
        return model
    # The clone shares its weights with the model, and the pass leaves large ones out.
    return passes.ShapeInferencePass(check_type=False, strict_mode=False)(model.clone()).model


class _Reader:
    """Builds the network in one walk over the nodes."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.folded: dict[int, Folded] = {}
        self.activations: dict[int, Activation] = {}
        self.ops: list[Op] = []
        self.asymmetric = 0

    def network(self) -> Network:
        """Return the network of the graph."""
        for order, node in enumerate(self.graph):
            self._node(order, node)
        for output in self.graph.outputs:
            if id(output) in self.activations:
                self.activations[id(output)].is_output = True
        notes = []
        if self.asymmetric:
            notes.append(f"{self.asymmetric} activation quantizers are not symmetric int8: TensorRT refuses them")
        names = {activation.name for activation in self.activations.values()}
        is_static = all(map(_has_static_image, self.graph.inputs)) and not any(op.kind in OF_DATA for op in self.ops)
        return Network(self.ops, notes, names, is_static)

    def _node(self, order: int, node: ir.Node) -> None:
        sources = [value for value in node.inputs if value is not None]
        sources.extend(_captured(node, self.graph))
        folded = [self._fold(value) for value in sources]
        if _is_shape(node) or (all(one is not None for one in folded) and (sources or node.op_type == "Constant")):
            self._fold_node(node, [one for one in folded if one is not None])
            return
        live = [value for value, one in zip(sources, folded, strict=True) if one is None]
        if _is_transparent(node) and len(live) == 1:
            self.activations[id(node.outputs[0])] = self._activation(live[0])
            return
        op = self._op(order, node)
        for value in live:
            op.read(len(op.inputs), self._activation(value))
        for output in node.outputs:
            op.write(len(op.outputs), self._activation(output))
        op.written = tuple(map(reading.name, node.outputs))
        if op.is_quantize:
            op.outputs[0].dtype = _quantized_dtype(node)
        if op.is_quantize or op.is_dequantize:
            op.inputs[0].converters.setdefault((op.kind, op.scale), op)
        self.ops.append(op)

    def _op(self, order: int, node: ir.Node) -> Op:
        standard = node.domain in ("", "ai.onnx")
        kind = node.op_type if standard else f"{node.domain}.{node.op_type}"
        op = Op("GlobalAveragePool" if _averages_images(node) else kind, order, [_name(node)])
        weights = [one for one in map(self._fold, node.inputs[:2]) if one is not None and one.dequantized]
        if op.kind in reading.WEIGHTED:
            op.int8_weight = bool(weights)
            op.nodes[:0] = [name for one in weights for name in one.nodes]
        op.crossed_by_q = op.kind in CROSSED_BY_Q and joint_of(node) is not None
        op.crossed_by_dq = op.kind in CROSSED_BY_DQ and joint_of(node) is not None
        op.depthwise = op.kind == "Conv" and _is_depthwise(node)
        if op.kind in ARITHMETIC:
            op.per_channel_constant, op.uniform_constant = _constant_shape(node)
        if op.is_quantize or op.is_dequantize:
            scale = reading.scale(node)
            op.scale, op.per_tensor = _scale_key(node), scale is not None and scale.size == 1
            self.asymmetric += op.is_quantize and not reading.is_symmetric_int8(node)
        return op

    def _fold(self, value: ir.Value | None) -> Folded | None:
        if value is None:
            return None
        if id(value) in self.folded:
            return self.folded[id(value)]
        return Folded() if reading.is_constant(value) else None

    def _fold_node(self, node: ir.Node, sources: list[Folded]) -> None:
        nodes = tuple(name for one in sources for name in one.nodes)
        if reading.is_quantize(node) or reading.is_dequantize(node):
            nodes += (_name(node),)
        dequantized = reading.is_dequantize(node) or any(one.dequantized for one in sources)
        for output in node.outputs:
            self.folded[id(output)] = Folded(dequantized, nodes)

    def _activation(self, value: ir.Value) -> Activation:
        if id(value) not in self.activations:
            self.activations[id(value)] = Activation(
                reading.name(value), _dims(value), DTYPES.get(value.dtype, "unknown")
            )
        return self.activations[id(value)]


def _captured(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what the subgraphs of a control-flow node read from outside."""
    for attribute in node.attributes.values():
        if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            continue
        subgraphs = attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else (attribute.as_graph(),)
        for inner in (one for subgraph in subgraphs for one in subgraph.all_nodes()):
            yield from (value for value in inner.inputs if value is not None and value.graph is graph)


def _has_static_image(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(dim, int) for dim in value.shape[1:])


def _averages_images(node: ir.Node) -> bool:
    """Tell whether a ReduceMean is what TensorRT replaces by a pooling layer: over H and W, dimensions kept.

    Source: TensorRT 8.6's developer guide, "Types of fusions", Reduce.
    """
    if node.op_type != "ReduceMean" or node.domain not in ("", "ai.onnx"):
        return False
    kept, given = node.attributes.get("keepdims"), node.attributes.get("axes")
    axes = given.as_ints() if given is not None else reading.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    source = node.inputs[0]
    if axes is None or source is None or source.shape is None or len(source.shape) != 4:
        return False
    return (kept is None or kept.as_int() == 1) and {int(axis) % 4 for axis in axes} == {2, 3}


def _is_depthwise(node: ir.Node) -> bool:
    group = node.attributes.get("group")
    return group is not None and group.as_int() > 1 and node.inputs[0] is not None and _channels(node) == group.as_int()


def _channels(node: ir.Node) -> int | None:
    value = node.inputs[0]
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    channels = value.shape[1]
    return channels if isinstance(channels, int) else None


def _constant_shape(node: ir.Node) -> tuple[bool, bool]:
    """Tell whether arithmetic has one constant with a value a channel, and whether with one value in all."""
    constants = [value for value in node.inputs if reading.is_constant(value)]
    if len(constants) != 1 or (node.op_type == "Div" and not reading.is_constant(node.inputs[1])):
        return False, False
    shape = reading.source(constants[0]).shape  # type: ignore[union-attr]
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return False, False
    wide = sum(dim != 1 for dim in shape)
    return wide <= 1, wide == 0


def _is_shape(node: ir.Node) -> bool:
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


def _is_transparent(node: ir.Node) -> bool:
    """Tell whether the node changes no value in the words of a prediction: a cast between floats does not."""
    if node.op_type == "Cast" and node.inputs[0] is not None:
        return node.inputs[0].dtype in FLOAT_TYPES and ir.DataType(node.attributes["to"].as_int()) in FLOAT_TYPES
    return node.op_type in TRANSPARENT


def _scale_key(node: ir.Node) -> ScaleKey:
    """Return what two converters must share to be equal: float32 scale, zero point and, per channel, the axis."""
    scale, zero = reading.scale(node), reading.zero_point(node)
    zeros = ("none",) if zero is None else (str(zero.dtype), bool(zero.any()) and zero.tobytes())
    if scale is None:
        return ("computed", id(reading.source(node.inputs[1])), *zeros)
    axis: Any = node.attributes["axis"].as_int() if scale.size > 1 and "axis" in node.attributes else None
    return (scale.astype(np.float32).tobytes(), axis, *zeros)


def _quantized_dtype(node: ir.Node) -> DType:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = None if zero is None else ir.convenience.get_const_tensor(zero)
    known = node.outputs[0].dtype if tensor is None else tensor.dtype
    return DTYPES.get(known, "unknown")


def _dims(value: ir.Value) -> tuple[int, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)


def _name(node: ir.Node) -> str:
    return node.name or reading.name(node.outputs[0])
