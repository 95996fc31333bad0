"""TQ901 node-names: nodes have no name, or share one.

## What it does

Finds nodes whose name is empty or is another node's too, subgraphs included. One finding for the file.

## Why it matters

An engine's layers tell which ONNX nodes they come from, by name: nodes that share one become one there, nodes without
one are called after their tensor. Reports and per-layer settings then cannot tell them apart.

## Fix

A nameless node is called by its operator and first output; of nodes that share a name all but the first get a number.

## Fix safety

Lossless: names carry no meaning in ONNX. What refers to the old names (a list of layers to leave in float) has to
follow.

Sources: layer tables of TensorRT-RTX 1.7; onnx-tensorrt, "node_of_<output>".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ901", "node-names"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    [first] active = Relu (x)
    [second] y = Sigmoid (active)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    [same] active = Relu (x)
    [same] gate = Sigmoid (active)
    y = Mul (active, gate)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for all nodes whose name is empty or taken."""
    nodes = _misnamed(model)
    if not nodes:
        return
    tensors = tuple(reading.name(node.outputs[0]) for node in nodes)
    nameless = sum(not node.name for node in nodes)
    counted = [
        f"{count} {what}"
        for count, what in ((nameless, "without a name"), (len(nodes) - nameless, "with the name of another"))
        if count
    ]
    yield Finding(
        code=CODE,
        name=NAME,
        tensors=tensors,
        removes=(),
        message=f"tensor{'s' if len(tensors) > 1 else ''} {listed(tensors)}: written by nodes {' and '.join(counted)},"
        " so an engine's layers cannot be told apart; the fix names them",
        safety="lossless",
        fixable=True,
    )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give every node a name of its own, in place; return 1 where one had none."""
    nodes = _misnamed(model)
    taken = {node.name or "" for node in model.graph.all_nodes()} if nodes else set()
    for node in nodes:
        node.name = editing.unused_name(node.name or f"{node.op_type}_{reading.name(node.outputs[0])}", taken)
    return int(bool(nodes))


def _misnamed(model: ir.Model) -> list[ir.Node]:
    """Return the nodes without a name and those whose name an earlier one has."""
    seen: set[str] = {""}
    found = []
    for node in model.graph.all_nodes():
        name = node.name or ""
        if name in seen and node.outputs:
            found.append(node)
        seen.add(name)
    return found


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
