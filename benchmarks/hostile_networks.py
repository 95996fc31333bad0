"""Networks with one thing wrong each, and what writes them as files: the parts of the hostile cases."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIZE = 8, 16
SHAPE = (1, CHANNELS, SIZE, SIZE)
DEEP_NODES = 3000
FLIPS = 6
Make = Callable[[Path], Path]


def save(path: Path, model: onnx.ModelProto) -> Path:
    """Write a model without any check."""
    path.write_bytes(model.SerializeToString())
    return path


def network(
    nodes: Sequence[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto] = (),
    *,
    output: str = "y",
    shape: Sequence[int | str] | None = SHAPE,
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a network of one input, `x`, and one output."""
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(output, dtype, None)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def constant(name: str, value: Any, dtype: npt.DTypeLike = np.float32) -> onnx.TensorProto:
    """Return an initializer."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def weights(seed: int = 0) -> npt.NDArray[Any]:
    """Return int8 weights of a 3x3 convolution."""
    return np.random.default_rng(seed).integers(-90, 90, (CHANNELS, CHANNELS, 3, 3), dtype=np.int8)


def quantized(
    scale: Any = 0.05,
    zero: Any = 0,
    zero_type: npt.DTypeLike | None = np.int8,
    *,
    weight_scale: Any = 0.01,
    weight_zero: Any = 0,
    weight_type: npt.DTypeLike = np.int8,
    activation_axis: int | None = None,
    weight_axis: int | None = None,
    bias: bool = False,
    name: str = "conv",
) -> onnx.ModelProto:
    """Return one convolution with Q/DQ on both inputs; zero_type None leaves the activation's zero point out."""
    stored = weights().view(weight_type) if np.dtype(weight_type).itemsize == 1 else weights().astype(weight_type)
    constants = [
        constant("s", scale),
        constant("ws", weight_scale),
        constant("wz", weight_zero, weight_type),
        numpy_helper.from_array(stored, "w"),
    ]
    pair = ["s"]
    if zero_type is not None:
        constants.append(constant("z", zero, zero_type))
        pair.append("z")
    axis: dict[str, Any] = {} if activation_axis is None else {"axis": activation_axis}
    weight_at: dict[str, Any] = {} if weight_axis is None else {"axis": weight_axis}
    read = ["xd", "wd"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *pair], ["xq"], **axis),
        helper.make_node("DequantizeLinear", ["xq", *pair], ["xd"], **axis),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], **weight_at),
    ]
    if bias:
        constants += [constant("b", range(CHANNELS), np.int32), constant("bs", 0.0005), constant("bz", 0, np.int32)]
        nodes.append(helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"]))
        read.append("bd")
    nodes.append(helper.make_node("Conv", read, ["y"], name=name, pads=[1] * 4))
    return network(nodes, constants)


def plain(values: npt.NDArray[Any] | None = None, name: str = "conv", tensor: str = "y") -> onnx.ModelProto:
    """Return one float convolution."""
    weight = constant("w", weights() / 90 if values is None else values)
    return network([helper.make_node("Conv", ["x", "w"], [tensor], name=name, pads=[1] * 4)], [weight], output=tensor)


def computed_scale(*, dynamic: bool = False) -> onnx.ModelProto:
    """Return weight Q/DQ whose scales come from two casts of one FP16 constant, or an activation's from the input."""
    model = quantized()
    nodes, graph = model.graph.node, model.graph
    if dynamic:
        made = [helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0)]
        nodes[0].input[1] = nodes[1].input[1] = "peak"
    else:
        graph.initializer.append(constant("half", np.full(CHANNELS, 0.01), np.float16))
        graph.initializer.append(constant("zeros", np.zeros(CHANNELS), np.int8))
        graph.initializer.append(constant("wf", weights() / 90.0))
        made = [helper.make_node("Cast", ["half"], [name], to=TensorProto.FLOAT) for name in ("sa", "sb")]
        made.append(helper.make_node("QuantizeLinear", ["wf", "sa", "zeros"], ["wq"], axis=0))
        nodes[2].CopyFrom(helper.make_node("DequantizeLinear", ["wq", "sb", "zeros"], ["wd"], axis=0))
    rest = list(nodes)
    del nodes[:]
    nodes.extend([*made, *rest])
    return model


def external(location: str, *, offset: str = "0", length: str | None = None) -> onnx.ModelProto:
    """Return a convolution whose weights lie in another file."""
    model = plain()
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length or str(size))):
        tensor.external_data.add(key=key, value=value)
    return model


def renamed(model: onnx.ModelProto, old: bytes, new: bytes) -> bytes:
    """Return a model's bytes with one name replaced by another of the same length: any bytes at all."""
    assert len(old) == len(new)
    return bytes(model.SerializeToString()).replace(old, new)


def raw(content: bytes | Callable[[], bytes]) -> Make:
    """Return what writes these bytes."""

    def make(folder: Path) -> Path:
        path = folder / "net.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return make


def model(build: Callable[[], onnx.ModelProto], name: str | bytes = "net.onnx") -> Make:
    """Return what writes a network under that name."""
    return lambda folder: save(folder / os.fsdecode(name), build())


def nodes(*nodes: onnx.NodeProto, constants: Sequence[onnx.TensorProto] = (), **options: Any) -> Make:
    """Return what writes a network of these nodes."""
    return model(lambda: network(nodes, constants, **options))


def special(act: Callable[[Path], None]) -> Make:
    """Return what makes something at the path that is no usual file."""

    def make(folder: Path) -> Path:
        act(folder / "net.onnx")
        return folder / "net.onnx"

    return make


def beside(model: Callable[[], onnx.ModelProto], content: bytes, act: Callable[[Path], None] | None = None) -> Make:
    """Return what writes a network, and a weights file beside it."""

    def make(folder: Path) -> Path:
        (folder / "weights.bin").write_bytes(content)
        if act is not None:
            act(folder)
        return save(folder / "net.onnx", model())

    return make


def flipped(seed: int) -> Make:
    """Return what writes a sound network with a few bits flipped."""

    def flip() -> bytes:
        random_bytes = random.Random(seed)
        content = bytearray(quantized().SerializeToString())
        for _ in range(FLIPS):
            content[random_bytes.randrange(len(content))] ^= 1 << random_bytes.randrange(8)
        return bytes(content)

    return raw(flip)


def node(kind: str, read: Sequence[str] = ("x",), write: str = "y", **attributes: Any) -> onnx.NodeProto:
    """Return a node with one output."""
    return helper.make_node(kind, list(read), [write], name=attributes.pop("name", "odd"), **attributes)


def deep() -> onnx.ModelProto:
    """Return a chain of pointwise operators that overflows a usual stack."""
    names = ["x", *(f"t{index}" for index in range(1, DEEP_NODES)), "y"]
    kinds = ("Relu", "Sigmoid")
    return network([node(kinds[i % 2], [names[i]], names[i + 1], name=f"n{i}") for i in range(DEEP_NODES)])


def nested(depth: int) -> onnx.ModelProto:
    """Return branches inside branches, each level twice."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)

    body = helper.make_graph([node("Relu", write="r0", name="r")], "b0", [], [value("r0")])
    for level in range(1, depth):
        branch = helper.make_node("If", ["yes"], [f"r{level}"], then_branch=body, else_branch=body)
        body = helper.make_graph([branch], f"b{level}", [], [value(f"r{level}")])
    last = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    return network([last], [constant("yes", True, np.bool_)])


def nested_bytes(depth: int) -> bytes:
    """Return graphs in attributes of nodes of graphs, deeper than protobuf reads, as bytes on the wire."""
    message = b""
    for _ in range(depth):
        for field in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            message = bytes([field << 3 | 2]) + _varint(len(message)) + message
    return b"\x08\x08" + bytes([7 << 3 | 2]) + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def recursive() -> onnx.ModelProto:
    """Return a network whose function calls itself."""
    model = network([helper.make_node("Again", ["x"], ["y"], domain="own")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    inner = helper.make_node("Again", ["a"], ["b"], domain="own")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [inner], imports))
    return model


def with_tensor(edit: Callable[[onnx.TensorProto], None]) -> Callable[[], onnx.ModelProto]:
    """Return what makes a convolution with its weights' tensor edited."""

    def build() -> onnx.ModelProto:
        model = plain()
        edit(model.graph.initializer[0])
        return model

    return build


def edited(
    model: Callable[[], onnx.ModelProto], edit: Callable[[onnx.ModelProto], Any]
) -> Callable[[], onnx.ModelProto]:
    """Return what makes a network and edits it."""

    def build() -> onnx.ModelProto:
        made = model()
        edit(made)
        return made

    return build


def dims(*sizes: int) -> Callable[[onnx.TensorProto], None]:
    """Return an edit that claims another shape for a tensor."""

    def edit(tensor: onnx.TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(sizes)

    return edit


def filled(value: float) -> npt.NDArray[Any]:
    """Return weights with one value replaced."""
    values = weights() / 90.0
    values[3, 2, 1, 1] = value
    return values


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the network labelled with another opset."""
    model.opset_import[0].version = opset
    return model


def with_input(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the network with its input renamed."""
    model.graph.input[0].name = name
    model.graph.node[0].input[0] = name
    return model
