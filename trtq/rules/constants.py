"""Constants that a file computes: values that other nodes make of initializers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from trtq.qdq import reading

# Scales are made by a handful of nodes; a longer chain is not a constant that somebody meant.
NODES_LIMIT = 64


def computed_from_constants(value: ir.Value | None) -> list[ir.Node] | None:
    """Return the nodes that make `value` from constants alone, producers first; None where it depends on an input."""
    order: list[ir.Node] = []
    seen: set[int] = set()
    stack: list[tuple[ir.Value | None, bool]] = [(value, False)]
    while stack:
        one, visited = stack.pop()
        node = None if one is None else one.producer()
        if node is None:
            if one is not None and not one.is_initializer():
                return None
            continue
        if visited:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            if len(seen) > NODES_LIMIT or (not node.inputs and node.op_type != "Constant"):
                return None
            stack.append((one, True))
            stack.extend((each, False) for each in node.inputs)
    return order


def fold(model: ir.Model, value: ir.Value) -> npt.NDArray[Any] | None:
    """Return what `value` always holds, computed by ONNX's reference; None where it depends on an input or fails."""
    nodes = computed_from_constants(value)
    if nodes is None:
        return None
    feeds = {reading.name(one): one for node in nodes for one in node.inputs if one is not None and not one.producer()}
    arrays = {name: reading.constant(one) for name, one in feeds.items()}
    if any(array is None for array in arrays.values()):
        return None
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constant",
        [],
        [onnx.ValueInfoProto(name=reading.name(value))],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    try:
        [result] = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, {})
    except Exception:  # the reference raises whatever its operators raise; a constant that cannot be computed is none
        return None
    return np.asarray(result)
