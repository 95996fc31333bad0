"""Which ONNX nodes a layer comes from, as TensorRT writes it."""

from __future__ import annotations

import re

_PREFIX, _SUFFIX = "[ONNX Layer: ", "]"
# Both separators occur, even within one file; logs copied from a terminal lose them.
_BETWEEN = re.compile(r"[\x1e\x1f]+|(?<=\])(?=\[ONNX Layer: )")


def split(metadata: str) -> tuple[str, ...]:
    """Return the ONNX node names in a layer's `Metadata`, each once, in its order."""
    parts = (part.strip() for part in _BETWEEN.split(metadata))
    names = (
        part[len(_PREFIX) : -len(_SUFFIX)] for part in parts if part.startswith(_PREFIX) and part.endswith(_SUFFIX)
    )
    return tuple(dict.fromkeys(name for name in names if name))
