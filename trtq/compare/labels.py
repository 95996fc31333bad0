"""What a place in a network is called: by the scopes that its ONNX nodes share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trtq.layers.graph import Layer

INPUT = "input"
_NUMBERED = re.compile(r"[^./]*_\d+")
_JOINTS = re.compile(r"[./]")
_QUANTIZE = re.compile(r"quantize", re.IGNORECASE)
SHOWN_NODES = 2


def label(a: Sequence[Layer], b: Sequence[Layer]) -> str:
    """Return the scope that the named nodes of a place share, else its first operations, else "".

    Of two engines, the one whose names say more; names that exporters count up say nothing.
    """
    found = [_scope(_names(layers)) for layers in (a, b)]
    best = max(found, key=len)
    if best:
        return best
    telling = max((_own(_names(layers)) for layers in (a, b)), key=lambda names: (_told(names), len(names)))
    return " + ".join(telling[:SHOWN_NODES])


def _names(layers: Iterable[Layer]) -> list[str]:
    names = (name.strip("/") for layer in layers for name in layer.onnx_nodes)
    return [name for name in dict.fromkeys(names) if name and not _QUANTIZE.search(name) and "(Unnamed" not in name]


def _scope(names: Iterable[str]) -> str:
    """Return the longest scope that all names with a scope share; for one name, all but its last part."""
    paths = [_JOINTS.split(name)[:-1] for name in names if not _NUMBERED.fullmatch(name) and _JOINTS.search(name)]
    if not paths:
        return ""
    shared = 0
    while shared < min(map(len, paths)) and len({path[shared] for path in paths}) == 1:
        shared += 1
    return ".".join(paths[0][:shared])


def _own(names: Sequence[str]) -> list[str]:
    short = [name for name in names if not name.endswith((".weight", ".bias"))]
    return short or list(names)


def _told(names: Sequence[str]) -> bool:
    return any(not _NUMBERED.fullmatch(name) for name in names)
