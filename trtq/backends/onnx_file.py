"""The check that every ONNX file passes before a vendor's library sees it: those accept some broken files silently."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from trtq import files
from trtq.backends import BuildSpec
from trtq.backends.form import OnnxForm, form_of
from trtq.errors import ModelError

# Attributes of convolutions and pools, with how many numbers each has for one of the kernel's dimensions.
WINDOW = {"pads": 2, "strides": 1, "dilations": 1}
# Attributes without a tensor or a graph in them.
PLAIN_ATTRIBUTES = frozenset(
    getattr(onnx.AttributeProto, name) for name in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS")
)
NO_SHAPE = "Field 'shape' of 'type' is required but missing"


# Device, inode, bytes and times of a file: another one at its path, or other bytes in it, have another state.
State = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """An ONNX file as it was read, once for all who ask: its bytes, and the network, without its external data."""

    path: Path
    content: bytes
    network: onnx.ModelProto
    state: State

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the bytes that were read."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Checked:
    """What is known of an ONNX file that passed the check, as small as a spec may carry; weights: its other files."""

    sha256: str
    form: OnnxForm
    weights: tuple[Path, ...]
    states: tuple[State | None, ...]

    def holds(self, path: Path) -> bool:
        """Tell whether `path` and its weights are still the files that were checked."""
        return self.states == tuple(map(_state, (path, *self.weights)))


def check(path: Path) -> onnx.ModelProto:
    """Return the network in an ONNX file, without its external data; raises `ModelError` where it is not a valid one.

    A graph input or output whose shape is not declared is let through: builders infer it.
    """
    source = read(path)
    checked(source)
    return source.network


def checked(source: Source) -> Checked:
    """Return what is known of a file that passes the check; raises `ModelError` where it does not."""
    model, path = source.network, source.path
    fault = _fault(source.content if _is_whole(model) else str(path))
    if fault is not None and NO_SHAPE in fault:
        fault = _fault(_with_shapes(model))
    if fault is not None:
        raise ModelError(f"{path}: is not a valid ONNX file ({fault}); export it again")
    _check_windows(model, path)
    _check_sizes(model, path)
    weights = external_files(model, path)
    _check_external_sizes(model, path)
    return Checked(source.sha256, form_of(model), weights, (source.state, *map(_state, weights)))


def known(spec: BuildSpec) -> Checked:
    """Return what is known of the spec's file, which is read and checked where nothing holds; raises `ModelError`."""
    if spec.known is not None and spec.known.holds(spec.onnx):
        return spec.known
    return checked(read(spec.onnx))


def sha256_of(spec: BuildSpec) -> str:
    """Return the SHA-256 of the spec's file, which is read where nothing holds; raises `ModelError`."""
    return spec.known.sha256 if spec.known is not None and spec.known.holds(spec.onnx) else files.sha256(spec.onnx)


def load(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, without its external data; raises `ModelError` where it is missing, empty or not ONNX."""
    return read(path).network


def read(path: Path) -> Source:
    """Read and parse an ONNX file; raises `ModelError` where it is missing, empty or not ONNX."""
    if not str(path).isascii() and not _is_text(os.fsencode(path)):
        raise ModelError(f"{path}: its name is not UTF-8, and ONNX's own library cannot open it; rename it")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path}: is not a file; name an ONNX file")
        if path.stat().st_size == 0:
            raise ModelError(f"{path}: is an empty file; export the network again")
        with path.open("rb") as file:
            content, state = file.read(), _numbers(os.fstat(file.fileno()))
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or a truncated one; export the network again") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path}: holds no network (no nodes, or no outputs); export it again")
    _check_names(model, path)
    return Source(path, content, model, state)


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


def _state(path: Path) -> State | None:
    """Return a file's state, None where it is not there."""
    try:
        return _numbers(path.stat())
    except OSError:
        return None


def _numbers(found: os.stat_result) -> State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_whole(model: onnx.ModelProto) -> bool:
    """Tell whether nothing in a network can lie in another file, which the checker finds beside a path alone."""
    if model.functions or model.training_info or model.graph.sparse_initializer:
        return False
    attributes = (one for node in model.graph.node for one in node.attribute if one.type not in PLAIN_ATTRIBUTES)
    return not _external(model) and all(_is_own_tensor(one) for one in attributes)


def _is_own_tensor(attribute: onnx.AttributeProto) -> bool:
    return attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_location != onnx.TensorProto.EXTERNAL


def _fault(model: str | bytes | onnx.ModelProto) -> str | None:
    """Return what ONNX's own checker holds against a file, its bytes or a network, on one line."""
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
