"""Layer graphs: what an engine runs, layer by layer, and one reader a format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from trtq.errors import ModelError
from trtq.layers import inspector, rtx
from trtq.layers.graph import Layer, LayerGraph, Signals, Tensor, load_layers

__all__ = ["READERS", "Layer", "LayerGraph", "Reader", "Signals", "Tensor", "read"]


class Reader(NamedTuple):
    """A format: whether a file, as text and as JSON value (None where it is not JSON), is of it, and how to read it."""

    accepts: Callable[[str, Any], bool]
    read: Callable[[Path, str, Any], LayerGraph]


READERS: dict[str, Reader] = {
    "trtq": Reader(
        lambda text, document: isinstance(document, dict) and "trtq_layers" in document,
        lambda path, text, document: load_layers(path),
    ),
    "inspector": Reader(
        lambda text, document: inspector.is_inspector(document),
        lambda path, text, document: inspector.read_graph(document, str(path)),
    ),
    "rtx": Reader(
        lambda text, document: rtx.holds_table(text),
        lambda path, text, document: rtx.read_graph(text, str(path)),
    ),
}


def read(path: Path, profile: Path | None = None) -> LayerGraph:
    """Read the layers of an engine from any format that READERS holds.

    `profile` adds measured times from `trtexec --exportProfile` to an inspector's layers.
    Raises `ModelError` when a file is missing, is of no known format, or is malformed.
    """
    text = _text(path)
    document = _json(text)
    for reader in READERS.values():
        if reader.accepts(text, document):
            graph = reader.read(path, text, document)
            return graph if profile is None else inspector.with_profile(graph, profile)
    raise ModelError(
        f"{path}: holds no layers; give a layers.json of trtq, a TensorRT-RTX build log, "
        "or the JSON of trtexec --exportLayerInfo"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error


def _json(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
