"""What a published engine's layer file says in the tensors and operators of an ONNX file; nothing of trtq reads it.

An engine's file names ONNX nodes (`layer1.0.conv2.weight + QuantizeLinear_32 + Conv_34 + Add_42 + Relu_43`), numbered
by the exporter of that time or scoped. Both lead to the same network, exported again: scoped names are equal, and
numbers of one kind count up in the same order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

CONVERTERS = ("QuantizeLinear", "DequantizeLinear")
ACTIVATIONS = ("Relu", "Clip")
# Kinds that a score of fused layers counts where the file names all of them.
KINDS = ("Conv", "Gemm", "Add", "MaxPool", "GlobalAveragePool", "AveragePool", *ACTIVATIONS)
_NUMBERED = re.compile(rf"\b({'|'.join(KINDS)})_(\d+)\b")
_SCOPED = re.compile(r"/[\w./]+/[A-Za-z]+(?=$| \+|\))")


class Network:
    """An ONNX file: its operators by name, who makes and who reads each tensor."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path), load_external_data=False).graph
        self.nodes = {node.name: node for node in graph.node}
        self.position = {name: index for index, name in enumerate(self.nodes)}
        self.maker = {tensor: node for node in graph.node for tensor in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)
        self.input = graph.input[0].name

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the operators of a kind, in order."""
        return [name for name, node in self.nodes.items() if node.op_type == kind]

    def float_tensor(self, tensor: str) -> str:
        """Return the tensor in front of the Q and DQ that made `tensor`."""
        while tensor in self.maker and self.maker[tensor].op_type in CONVERTERS:
            tensor = self.maker[tensor].input[0]
        return tensor


@dataclass(frozen=True)
class RealLayer:
    """A kernel: its operators by ONNX name, the types that it reads and writes, and the ONNX tensor that it writes."""

    operators: frozenset[str]
    reads: tuple[str, ...]
    writes: str
    tensor: str


@dataclass(frozen=True)
class RealEngine:
    """A layer file in the words of an ONNX file. converted: the tensors that a leftover Q or DQ converts, sorted."""

    layers: tuple[RealLayer, ...]
    converted: tuple[str, ...]
    kinds: tuple[str, ...]


def read_engine(path: Path, network: Network) -> RealEngine:
    """Return what the layer file says; `kinds` are those of KINDS that it names completely."""
    rows = json.loads(path.read_text())["Layers"]
    names = _names(rows, network)
    kinds = tuple(kind for kind in KINDS if network.of_kind(kind) and set(network.of_kind(kind)) <= set(names.values()))
    named = set(names.values())
    tensors: dict[str, str] = {}
    layers, converted = [], []
    for row in rows:
        given = [tensors.get(one["Name"], network.input) for one in row["Inputs"]] or [""]
        operators = [names[word] for word in _words(row["Name"]) if word in names]
        if row.get("Origin") == "QDQ":
            converted.append(given[0])
            written = given[0]
        elif row["LayerType"] in ("NoOp", "Reformat") or not operators:
            written = given[0]
        else:
            last = max(operators, key=network.position.__getitem__)
            written = _end(network, network.nodes[last].output[0], named)
            reads = tuple(dtype_of(one) for one in row["Inputs"])
            layers.append(RealLayer(frozenset(operators), reads, dtype_of(row["Outputs"][0]), written))
        tensors.update({one["Name"]: written for one in row["Outputs"]})
    return RealEngine(tuple(layers), tuple(sorted(converted)), kinds)


def dtype_of(tensor: Mapping[str, Any]) -> str:
    """Return whether the file has a tensor as int8 or float."""
    return "int8" if "INT8" in tensor["Format/Datatype"].upper() else "float"


def _names(rows: list[dict[str, Any]], network: Network) -> dict[str, str]:
    """Map each operator's name in the file to its name in the network."""
    words = {word for row in rows for word in _words(row["Name"])}
    found = {word: word for word in words if word in network.nodes}
    for kind in KINDS:
        numbers = sorted({int(number) for word in words for one, number in _NUMBERED.findall(word) if one == kind})
        here = network.of_kind(kind)
        if len(numbers) == len(here):
            found |= {f"{kind}_{number}": name for number, name in zip(numbers, here, strict=True)}
    return found


def _words(name: str) -> Iterator[str]:
    if name.startswith("Reformatting"):
        return
    yield from (match[0] for match in _NUMBERED.finditer(name))
    yield from _SCOPED.findall(name)


def _end(network: Network, tensor: str, named: set[str]) -> str:
    """Follow activations that the file leaves out: they run in the kernel that makes what they read."""
    readers = network.readers.get(tensor, [])
    if len(readers) == 1 and readers[0].op_type in ACTIVATIONS and readers[0].name not in named:
        return _end(network, readers[0].output[0], named)
    return tensor
