"""What can be compared: anything that a layer graph is read from or predicted for."""

from __future__ import annotations

from pathlib import Path

from trtq import predict, qdq
from trtq.layers import read
from trtq.layers.graph import LayerGraph


def subject(path: Path, mode: predict.Mode = "explicit") -> LayerGraph:
    """Return the layers behind `path`: a layer file or engine log, the folder of a built mode, or an ONNX file.

    An ONNX file has none, so they are predicted, by `mode`. Raises `ModelError` for what cannot be read.
    """
    if path.suffix == ".onnx":
        return predict.predict(qdq.load(path), mode)
    return read(path / "layers.json" if path.is_dir() else path)
