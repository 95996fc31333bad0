"""Small edits of a Q/DQ graph that unify, clean and the rules share."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from trtq.qdq import reading


def names(model: ir.Model) -> set[str]:
    """Return every tensor and node name of the graph and its subgraphs: what nothing new may be called."""
    taken = set(model.graph.initializers)
    taken.update(reading.name(value) for value in model.graph.inputs)
    for node in model.graph.all_nodes():
        taken.update(reading.name(value) for value in (*node.inputs, *node.outputs))
        taken.add(node.name or "")
    return taken


def unused_name(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, numbered where it is taken, and take it."""
    free, count = wanted, 1
    while free in taken:
        free, count = f"{wanted}_{count}", count + 1
    taken.add(free)
    return free


def add_initializer(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Add a constant to the graph; its name must be new."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def drop_unused(model: ir.Model, value: ir.Value | None) -> None:
    """Take away a constant that nothing reads any more, with the Constant and Identity nodes that made it."""
    while value is not None and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
        producer = value.producer()
        if producer is None:
            model.graph.initializers.pop(reading.name(value), None)
            return
        value = producer.inputs[0] if producer.inputs else None
        model.graph.remove(producer, safe=True)
