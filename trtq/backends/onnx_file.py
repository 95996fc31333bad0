"""The check that every ONNX file passes before a vendor's library sees it: those accept some broken files silently."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from trtq.errors import ModelError

NO_SHAPE = "Field 'shape' of 'type' is required but missing"


def check(path: Path) -> onnx.ModelProto:
    """Return the network in an ONNX file, without its external data; raises `ModelError` where it is not a valid one.

    A graph input or output whose shape is not declared is let through: builders infer it.
    """
    model = load(path)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        if NO_SHAPE not in str(error):
            raise ModelError(f"{path}: is not a valid ONNX file ({one_line(str(error))}); export it again") from error
        _check_without_shapes(model, path)
    return model


def load(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, without its external data; raises `ModelError` where it is missing, empty or not ONNX."""
    try:
        if path.stat().st_size == 0:
            raise ModelError(f"{path}: is an empty file; export the network again")
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or a truncated one; export the network again") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path}: holds no network (no nodes, or no outputs); export it again")
    return model


def one_line(text: str, limit: int = 300) -> str:
    """Return the text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _check_without_shapes(model: onnx.ModelProto, path: Path) -> None:
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    for value in (*shaped.graph.input, *shaped.graph.output, *shaped.graph.value_info):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(shaped)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path}: is not a valid ONNX file ({one_line(str(error))}); export it again") from error
