"""Integer regions, which the rules on values share: the Q/DQ that hang together by integers, and their parameters.

Zero point, type and scale belong to the integers between a QuantizeLinear and its DequantizeLinear nodes, so all of a
region changes together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.qdq.groups import Classes, joint_of
from trtq.qdq.remembering import remembered

EIGHT_BITS = (np.dtype(np.int8), np.dtype(np.uint8))
INT8_HIGHEST, INT8_LOWEST = 127, -128


@dataclass(frozen=True)
class Parameters:
    """How a region quantizes: `q = saturate(round(x / scale) + zero_point)`; one or one for each channel along axis.

    told: whether the file says the integer type; where it does not, ONNX takes uint8.
    """

    scale: npt.NDArray[Any]
    zero_point: npt.NDArray[Any]
    dtype: np.dtype[Any]
    axis: int
    told: bool = True

    @property
    def symmetric_int8(self) -> bool:
        """Whether this is what TensorRT takes."""
        return self.dtype == np.int8 and not self.zero_point.any()

    @property
    def from_zero(self) -> bool:
        """Whether the range starts at zero in every channel."""
        return self.dtype in EIGHT_BITS and bool((self.zero_point == np.iinfo(self.dtype).min).all())

    def along(self, values: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
        """Return scale, zero point or another number a channel in a shape that broadcasts against the tensor."""
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if one == self.axis % rank else 1 for one in range(rank)])

    def equals(self, other: Parameters) -> bool:
        """Tell whether both quantize alike."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale.reshape(-1), other.scale.reshape(-1))
            and np.array_equal(self.zero_point.reshape(-1), other.zero_point.reshape(-1))
            and (self.scale.size == 1 or self.axis == other.axis)
        )


@dataclass
class Region:
    """Quantizers, dequantizers and the operators that pass integers on between them, in graph order.

    obstacle: why the region cannot be changed, in words; None when it can.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    passing: list[ir.Node] = field(default_factory=list)
    obstacle: str | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are quantized: what findings name."""
        return tuple(dict.fromkeys(reading.name(reading.quantized_tensor(node)) for node in self.quantizing))

    @property
    def quantizing(self) -> list[ir.Node]:
        """The quantizers; for integers that the file stores, their DequantizeLinear."""
        return [node for node in self.nodes if reading.is_quantize(node)] or self.nodes

    @property
    def constant(self) -> ir.Value | None:
        """The constant that the region quantizes or dequantizes, None for an activation."""
        value = reading.quantized_tensor(self.nodes[0])
        return value if reading.is_constant(value) else None

    @property
    def parameters(self) -> Parameters | None:
        """How the region quantizes; None where a scale or zero point is computed at run time."""
        return parameters(self.nodes[0])


@remembered
def regions(model: ir.Model) -> tuple[Region, ...]:
    """Return the integer regions of a graph in graph order; linear in the graph's size."""
    classes = Classes()
    integers: set[int] = set()
    found: dict[int, Region] = {}
    for node in reading.nodes(model):
        if reading.is_quantize(node):
            integers.add(id(node.outputs[0]))
        elif reading.is_dequantize(node):
            _start(node, integers)
        elif node.inputs and id(node.inputs[0]) in integers and _passes(node):
            read = [one for one in node.inputs if id(one) in integers]
            for value in (*read, *node.outputs):
                classes.union(node.outputs[0], value)
            integers.update(id(one) for one in node.outputs)
    for node in reading.nodes(model):
        _place(node, classes, integers, found)
    for value in (*model.graph.inputs, *model.graph.outputs):
        region = found.get(classes.find(value)) if id(value) in integers else None
        if region is not None:
            region.obstacle = region.obstacle or f"'{reading.name(value)}' goes in or out of the network as integers"
    result = tuple(region for region in found.values() if region.nodes)
    for region in result:
        region.obstacle = region.obstacle or _disagreement(region)
    return result


@remembered
def pairs(model: ir.Model) -> tuple[ir.Node, ...]:
    """Return the QuantizeLinear and DequantizeLinear nodes in graph order."""
    return tuple(filter(is_pair, reading.nodes(model)))


def is_pair(node: ir.Node) -> bool:
    """Tell whether `node` is a QuantizeLinear or DequantizeLinear."""
    return reading.is_quantize(node) or reading.is_dequantize(node)


@remembered
def parameters(node: ir.Node) -> Parameters | None:
    """Return how one Q or DQ node quantizes, or None where that is computed at run time."""
    scale = reading.scale(node)
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    zero_point = reading.zero_point(node) if given else None
    if scale is None or (given and zero_point is None):
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    if zero_point is not None:
        return Parameters(scale, zero_point, zero_point.dtype, axis)
    dtype = _implied(node)
    zero_point = np.zeros(scale.shape, dtype or np.uint8)
    return Parameters(scale, zero_point, zero_point.dtype, axis, told=dtype is not None)


def _implied(node: ir.Node) -> np.dtype[Any] | None:
    """Return the integer type of a Q or DQ node without a zero point: what it is told, or reads; None by default."""
    if reading.is_quantize(node):
        told = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        return np.dtype(ir.DataType(told).numpy()) if told else None
    stored = reading.source(node.inputs[0])
    producer = None if stored is None else stored.producer()
    if producer is not None and reading.is_quantize(producer):
        zero_point = reading.zero_point(producer)
        return _implied(producer) if zero_point is None else zero_point.dtype
    return None if stored is None or stored.dtype is None else np.dtype(stored.dtype.numpy())


class Edits:
    """Gives regions of one network other parameters and constants, in place; `with Edits(model) as edits: ...`.

    What nothing reads any more goes at the end, once: a scale that thousands share would else be looked at each time.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._taken = editing.names(model)
        self._replaced: dict[int, ir.Value] = {}

    def __enter__(self) -> Edits:
        return self

    def __exit__(self, *_: object) -> None:
        for value in self._replaced.values():
            editing.drop_unused(self._model, value)

    def parameters(self, region: Region, new: Parameters) -> None:
        """Make all Q and DQ of `region` quantize by `new`, which is int8; the region's constant stays as it is."""
        name = region.tensors[0]
        places = (self._constant(f"{name}_scale", new.scale), self._constant(f"{name}_zero_point", new.zero_point))
        for node in region.nodes:
            node.resize_inputs(3)
            for index, value in enumerate(places, start=1):
                self._put(node, index, value)
            if new.scale.size > 1:
                node.attributes["axis"] = ir.AttrInt64("axis", new.axis)
            if reading.is_quantize(node):
                node.attributes.pop("output_dtype", None)  # the zero point says it
        for node in (*region.nodes, *region.passing):
            for value in () if reading.is_dequantize(node) else node.outputs:
                value.type = ir.TensorType(ir.DataType.INT8)

    def data(self, region: Region, array: npt.NDArray[Any]) -> None:
        """Give the first Q or DQ of `region` another constant to work on."""
        self._put(region.nodes[0], 0, self._constant(f"{region.tensors[0]}_requantized", array))

    def relu(self, quantizer: ir.Node) -> None:
        """Put a Relu in front of a quantizer."""
        value = quantizer.inputs[0]
        assert value is not None
        name = editing.unused_name(f"{reading.name(value)}_relu", self._taken)
        output = ir.Value(name=name, shape=value.shape, type=value.type)
        self._model.graph.insert_before(quantizer, ir.node("Relu", [value], outputs=[output], name=name))
        quantizer.replace_input_with(0, output)

    def _constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        return editing.add_initializer(self._model, editing.unused_name(name, self._taken), array)

    def _put(self, node: ir.Node, index: int, value: ir.Value) -> None:
        replaced = node.inputs[index]
        if replaced is not None:
            self._replaced[id(replaced)] = replaced
        node.replace_input_with(index, value)


def codes(values: npt.NDArray[Any], of: Parameters) -> npt.NDArray[np.int64]:
    """Return the integers, less their zero point, that stand for a constant; stored integers stand for themselves.

    The constant must fit the scales. Arithmetic: ONNX QuantizeLinear, saturate(round_half_even(x / scale) + zero
    point).
    """
    zero_point = of.along(of.zero_point.astype(np.int64), values.ndim)
    if values.dtype.kind in "iu":
        shifted: npt.NDArray[np.int64] = values.astype(np.int64) - zero_point
        return shifted
    limits = np.iinfo(of.dtype)
    rounded = np.rint(values.astype(np.float32) / of.along(of.scale.astype(np.float32), values.ndim))
    in_range = np.clip(np.nan_to_num(rounded, posinf=limits.max, neginf=limits.min), -(2**33), 2**33)
    clipped: npt.NDArray[np.int64] = (
        np.clip(in_range.astype(np.int64) + zero_point, limits.min, limits.max) - zero_point
    )
    return clipped


def fits(values: npt.NDArray[Any], of: Parameters) -> bool:
    """Tell whether there is one scale, or one for each channel along the axis."""
    if of.scale.size == 1:
        return True
    return -values.ndim <= of.axis < values.ndim and values.shape[of.axis] == of.scale.size


def by_tensor(found: Iterator[Region]) -> dict[str, list[Region]]:
    """Return regions by the first tensor that they quantize: one finding each."""
    result: dict[str, list[Region]] = {}
    for region in found:
        result.setdefault(region.tensors[0], []).append(region)
    return result


def _start(node: ir.Node, integers: set[int]) -> None:
    """Take a stored or fed integer tensor into account where a DequantizeLinear reads it."""
    value = node.inputs[0]
    if value is not None and not reading.is_constant(value):
        integers.add(id(value))


def _place(node: ir.Node, classes: Classes, integers: set[int], found: dict[int, Region]) -> None:
    """Put a node into the region of its integers, or tell the region that the node stands in the way."""
    if reading.is_dequantize(node) and reading.is_constant(node.inputs[0]):
        found[id(node)] = Region([node])  # a constant is stored anew for each reader, so it joins nothing
        return
    if is_pair(node):
        value = node.outputs[0] if reading.is_quantize(node) else node.inputs[0]
        found.setdefault(classes.find(value), Region()).nodes.append(node)
        if reading.is_quantize(node):
            return
    for value in node.inputs:
        if id(value) not in integers:
            continue
        region = found.setdefault(classes.find(value), Region())
        if _passes(node):
            region.passing.append(node)
        elif not reading.is_dequantize(node):
            region.obstacle = f"{node.op_type} '{reading.name(node.outputs[0])}' works on its integers"
    for value in node.outputs:
        if id(value) in integers and not any(id(one) in integers for one in node.inputs):
            region = found.setdefault(classes.find(value), Region())
            region.obstacle = f"{node.op_type} '{reading.name(value)}' writes its integers"


def _passes(node: ir.Node) -> bool:
    """Tell whether a node hands integers on, whatever they stand for: Relu, Clip and Pad depend on the zero point."""
    return joint_of(node) is not None and node.op_type not in ("Relu", "Clip", "Pad", "Cast")


def _disagreement(region: Region) -> str | None:
    own = [parameters(node) for node in region.nodes]
    first = own[0]
    if first is None or any(one is None for one in own):
        return "its scale or zero point is computed"
    if not all(one is not None and first.equals(one) for one in own):
        return "its QuantizeLinear and DequantizeLinear differ"
    return None
