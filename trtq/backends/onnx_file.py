"""The check that every ONNX file passes before a vendor's library sees it: those accept some broken files silently."""

from __future__ import annotations

import math
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from trtq.errors import ModelError

# Attributes of convolutions and pools, with how many numbers each has for one of the kernel's dimensions.
WINDOW = {"pads": 2, "strides": 1, "dilations": 1}
NO_SHAPE = "Field 'shape' of 'type' is required but missing"


def check(path: Path) -> onnx.ModelProto:
    """Return the network in an ONNX file, without its external data; raises `ModelError` where it is not a valid one.

    A graph input or output whose shape is not declared is let through: builders infer it.
    """
    model = load(path)
    fault = _fault(str(path))
    if fault is not None and NO_SHAPE in fault:
        fault = _fault(_with_shapes(model))
    if fault is not None:
        raise ModelError(f"{path}: is not a valid ONNX file ({fault}); export it again")
    _check_windows(model, path)
    _check_sizes(model, path)
    external_files(model, path)
    _check_external_sizes(model, path)
    return model


def load(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, without its external data; raises `ModelError` where it is missing, empty or not ONNX."""
    if not str(path).isascii() and not _is_text(os.fsencode(path)):
        raise ModelError(f"{path}: its name is not UTF-8, and ONNX's own library cannot open it; rename it")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path}: is not a file; name an ONNX file")
        if path.stat().st_size == 0:
            raise ModelError(f"{path}: is an empty file; export the network again")
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or a truncated one; export the network again") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path}: holds no network (no nodes, or no outputs); export it again")
    _check_names(model, path)
    return model


def external_files(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Return the external data files of the network in `path`, in order; raises `ModelError` where one cannot be used.

    Only files in the network's own folder are: no other file of this machine is for a network to name.
    """
    locations = {entry.value for one in _external(model) for entry in one.external_data if entry.key == "location"}
    folder, found = path.resolve().parent, []
    for location in sorted(locations, key=str):
        if isinstance(location, bytes) or "\0" in location:
            raise ModelError(f"{path}: the name {location!r} of its weights file is not text; export it again")
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(f"{path}: its weights file '{location}' lies outside the network's folder; refused")
        if not file.is_file():
            raise ModelError(
                f"{path}: its weights file '{location}' is missing, or not a file; put it beside the network"
            )
        found.append(folder / location)
    return tuple(found)


def one_line(text: str, limit: int = 300) -> str:
    """Return the text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _fault(model: str | onnx.ModelProto) -> str | None:
    """Return what ONNX's own checker holds against a file or a network, on one line."""
    try:
        onnx.checker.check_model(model)
    except UnicodeDecodeError:  # the checker's message holds a name that is not text
        return "a name in it is not UTF-8"
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return one_line(str(error))
    return None


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with declared shapes, and nothing external: the checker looks for that beside a file alone."""
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    for value in (*shaped.graph.input, *shaped.graph.output, *shaped.graph.value_info):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for tensor in _external(shaped):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.dims[:] = [0]
        tensor.raw_data = b""
    return shaped


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    constants = (one.t for node in model.graph.node if node.op_type == "Constant" for one in node.attribute)
    return [one for one in (*model.graph.initializer, *constants) if one.data_location == onnx.TensorProto.EXTERNAL]


def _check_names(model: onnx.ModelProto, path: Path) -> None:
    """Raise `ModelError` where a name is not text: protobuf hands those over as bytes, which nothing else expects."""
    graph = model.graph
    for node in graph.node:
        for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
            if isinstance(name, bytes):
                raise ModelError(f"{path}: the name {name!r} in it is not UTF-8; export it again")
    for one in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if isinstance(one.name, bytes):
            raise ModelError(f"{path}: the name {one.name!r} in it is not UTF-8; export it again")


def _check_windows(model: onnx.ModelProto, path: Path) -> None:
    """Raise `ModelError` where a window's attributes differ in dimensions: TensorRT's parser reads the first ones."""
    for node in model.graph.node:
        lengths = {one.name: len(one.ints) for one in node.attribute}
        kernel = lengths.get("kernel_shape")
        for name, times in WINDOW.items():
            if kernel is not None and name in lengths and lengths[name] != times * kernel:
                raise ModelError(
                    f"{path}: node '{node.name}' ({node.op_type}) has {lengths[name]} {name} for a kernel of {kernel} "
                    "dimensions; export it again"
                )


def _check_sizes(model: onnx.ModelProto, path: Path) -> None:
    """Raise `ModelError` where a tensor holds more bytes than its shape says: the checker finds fewer alone."""
    constants = (one.t for node in model.graph.node if node.op_type == "Constant" for one in node.attribute)
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{path}: tensor '{tensor.name}' is of type {tensor.data_type}, which ONNX does not have")
        if not tensor.HasField("raw_data") or tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        shape, size = list(tensor.dims), len(tensor.raw_data)
        if size != math.ceil(math.prod(shape) * ir.DataType(tensor.data_type).itemsize):
            raise ModelError(f"{path}: tensor '{tensor.name}' has {size} bytes, not those of {shape}; export it again")


def _check_external_sizes(model: onnx.ModelProto, path: Path) -> None:
    """Raise `ModelError` where external data does not say where it is, or its file ends before it does."""
    folder = path.resolve().parent
    for tensor in _external(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location, numbers = entries.get("location", ""), [entries.get("offset", "0"), entries.get("length", "0")]
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise ModelError(
                f"{path}: tensor '{tensor.name}' lies at {numbers[0]} in '{location}', {numbers[1]} bytes long, which "
                "are not offset and length; export it again"
            )
        least = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
        if (folder / location).stat().st_size < int(numbers[0]) + max(int(numbers[1]), least):
            raise ModelError(f"{path}: its weights file '{location}' ends before tensor '{tensor.name}' does")


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
