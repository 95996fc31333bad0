"""Which module of the network a layer belongs to, read off the names of its ONNX nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from trtq.layers.graph import Layer
from trtq.report.wording import QUANTIZER

ModulePath = tuple[str, ...]
# TensorRT wraps and joins: PWN(PWN(/act/Sigmoid), /act/Mul), {ForeignNode[/a/b.../c/d]}.
NAME = re.compile(r"[^\s(),+{}\[\]]+")
CUT = "..."


def module_path(node: str) -> ModulePath:
    """Return the modules that a node's name says it lies in, outermost first; () for a name without scope.

    Exporters write /layer1/layer1.0/conv1/Conv (PyTorch), layer1.0.conv1/Conv (trtq) and, in engines of TensorRT 8,
    layer1.0.conv1.weight: each is ("layer1", "0", "conv1"). Quantizers belong to the module that they are for.
    """
    name = next((word for word in NAME.findall(node) if ("/" in word or "." in word) and CUT not in word), "")
    above, slash, _ = name.rpartition("/")
    scopes = [scope for scope in above.split("/") if scope] if slash else [name.rpartition(".")[0]]
    own = scopes[:1] + [after.removeprefix(f"{before}.") for before, after in pairwise(scopes)]
    return tuple(word for scope in own for word in scope.split(".") if word and not word.endswith("quantizer"))


def layer_path(layer: Layer) -> ModulePath:
    """Return the innermost module that more than half of a layer's nodes lie in; quantizers decide only alone."""
    names = [name for name in layer.onnx_nodes or (layer.name,) if not QUANTIZER.search(name)]
    paths = [path for path in map(module_path, names or layer.onnx_nodes) if path]
    return _shared(paths)


def _shared(paths: Sequence[ModulePath]) -> ModulePath:
    agreed: ModulePath = ()
    while longer := Counter(path[: len(agreed) + 1] for path in paths if len(path) > len(agreed)):
        most, count = longer.most_common(1)[0]
        if 2 * count <= len(paths):
            break
        agreed = most
        paths = [path for path in paths if path[: len(agreed)] == agreed]
    return agreed
