"""ONNX files in and out, through onnx-ir: metadata, doc strings and external data survive an edit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import google.protobuf.message
import onnx
import onnx_ir as ir

from trtq import files
from trtq.errors import ModelError, OutputError
from trtq.qdq.remembering import without_collection

EXTERNAL_FROM_BYTES = 1024  # smaller constants stay in the model, where shape inference reads them


def load(path: Path) -> ir.Model:
    """Read an ONNX file; external data stays in its file and is mapped when needed.

    Raises `ModelError` with one sentence for a file that is missing, empty, cut, not ONNX, or whose external data
    is missing, short or outside the model's own folder.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path}: is not a file; name an ONNX file")  # a pipe or device might never end
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (google.protobuf.message.DecodeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut short; export it again") from error
    return from_proto(proto, path)


def from_proto(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """Return the model in what was parsed from `path`; raises `ModelError` as `load` does."""
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path}: holds no network; it is empty, cut short, or not an ONNX file")
    _check_external_data(path, proto)
    try:
        with without_collection():
            model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir raises many types for malformed graphs; all mean the same to the user
        raise ModelError(
            f"{path}: is not a valid ONNX graph ({_first_line(error)}); check it with onnx.checker"
        ) from error
    _sort(path, model)
    ir.external_data.set_base_dir(model.graph, path.resolve().parent)
    return model


def save(model: ir.Model, path: Path) -> None:
    """Write `model` to `path` atomically; external data stays external, copied beside `path` when it is elsewhere.

    Raises `OutputError` when it cannot be written, `ModelError` when it has grown past protobuf's 2 GiB.
    """
    with without_collection():
        proto = ir.to_proto(model)
    # Asking for the size first would serialize twice.
    try:
        content = proto.SerializeToString(deterministic=True)
    except google.protobuf.message.EncodeError as error:
        raise ModelError(f"{path}: the network is over 2 GiB; keep its weights as external data") from error
    copy_weights(model, path.resolve().parent)
    files.write_bytes(path, content)


def has_external_data(model: ir.Model) -> bool:
    """Tell whether any weights of `model` lie in a file of their own."""
    return bool(_weights_files(model))


def weights_bytes(model: ir.Model) -> int:
    """Return the size of the files in which `model` keeps weights; 0 where they are in its own."""
    return sum(path.stat().st_size for path in _weights_files(model).values())


def save_external(model: ir.Model, path: Path) -> None:
    """Write `model` to `path` and its weights to one file beside it, `path` with `.data` behind, each atomically.

    The weights come first, so a model that is there is whole. Raises `OutputError` when they cannot be written.
    """
    location = f"{path.name}.data"
    with files.atomic_path(path.with_name(location)) as temporary:
        ir.external_data.unload_from_model(
            model, temporary.parent, temporary.name, size_threshold_bytes=EXTERNAL_FROM_BYTES
        )
        with without_collection():
            proto = ir.to_proto(model)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
    files.write_bytes(path, proto.SerializeToString(deterministic=True))


def copy_weights(model: ir.Model, folder: Path) -> None:
    """Copy the external data files of `model` into `folder`, where a model saved there looks for them.

    Raises `OutputError` when one cannot be written, or would replace a file that holds something else.
    """
    for location, source in _weights_files(model).items():
        target = folder / location
        if target.exists() and (target.samefile(source) or files.sha256(target) == files.sha256(source)):
            continue
        if target.exists():
            raise OutputError(f"{target}: holds other weights than '{source}'; write the model into another folder")
        with files.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _sort(path: Path, model: ir.Model) -> None:
    """Put producers before consumers where a file has them otherwise: every walk over nodes relies on it."""
    written: set[int] = set()
    for node in model.graph:
        if any(one is not None and one.producer() is not None and id(one) not in written for one in node.inputs):
            break
        written.update(map(id, node.outputs))
    else:
        return
    try:
        model.graph.sort()
    except ValueError as error:
        raise ModelError(f"{path}: its nodes form a cycle, so it cannot be run; export it again") from error


def _weights_files(model: ir.Model) -> dict[str, Path]:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    for node in model.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            tensors.append(node.attributes["value"].as_tensor())
    return {str(tensor.location): Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}


def _check_external_data(path: Path, proto: onnx.ModelProto) -> None:
    folder = path.resolve().parent
    constants = (one.t for node in proto.graph.node if node.op_type == "Constant" for one in node.attribute)
    for tensor in (*proto.graph.initializer, *constants):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {one.key: one.value for one in tensor.external_data}
        file = (folder / entry.get("location", "")).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(f"{path}: tensor '{tensor.name}' points outside the model's folder; refused")
        if not file.is_file():
            raise ModelError(f"{path}: its weights file '{file.name}' is missing; put it beside the model")
        needed = _number(entry, "offset") + max(_number(entry, "length"), _bytes_of(tensor))
        if file.stat().st_size < needed:
            raise ModelError(f"{path}: its weights file '{file.name}' is shorter than tensor '{tensor.name}' needs")


def _bytes_of(tensor: onnx.TensorProto) -> int:
    return math.ceil(math.prod(int(size) for size in tensor.dims) * ir.DataType(tensor.data_type).itemsize)


def _number(entry: dict[str, str], key: str) -> int:
    text = entry.get(key, "0")
    return int(text) if text.isdecimal() else 0


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
