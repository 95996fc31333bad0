"""TQ902 dead-nodes: nodes whose results nothing uses.

## What it does

Finds nodes that no output of the network depends on. One finding for each tensor at the end of a dead branch. A
QuantizeLinear or DequantizeLinear that leads nowhere is TQ212's.

## Why it matters

TensorRT drops them too, but they blur what a file says: a dead reader of a tensor looks like a consumer that needs it
in float. They are left over from edits and from heads that only training uses.

## Fix

The nodes go, and the constants that only they read.

## Fix safety

Lossless: no output depends on them.

Sources: ONNX, "a graph's outputs"; TensorRT developer guide, network optimizations (unused layers are eliminated).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ902", "dead-nodes"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = Relu (x)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = Relu (x)
    gate = Sigmoid (y)
    unused = Mul (gate, y)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each end of a dead branch."""
    dead = _dead(model)
    if not dead:
        return
    known = {id(node) for node in dead}
    for end in (node for node in dead if not any(id(reader) in known for reader in _readers(node))):
        name = reading.name(next((one for one in end.outputs if one.name), None))
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': nothing uses what {end.op_type} writes; the fix takes it away with all that only"
            " leads there",
            safety="lossless",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Take away the findings' branches, in place; return how many."""
    wanted = {name for finding in findings for name in finding.tensors}
    waiting = [node for node in _dead(model) if any(one.name in wanted for one in node.outputs)]
    waiting = [node for node in waiting if not any(True for _ in _readers(node))]
    mended = len(waiting)
    while waiting:
        node = waiting.pop()
        if node.graph is None or any(one.uses() or one.is_graph_output() for one in node.outputs):
            continue
        inputs = list(dict.fromkeys(one for one in node.inputs if one is not None))
        model.graph.remove(node, safe=True)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                waiting.append(producer)
            else:
                editing.drop_unused(model, value)
    return mended


def _dead(model: ir.Model) -> list[ir.Node]:
    """Return the nodes of the main graph that no output depends on, subgraphs' captures counted as uses."""
    alive: set[int] = set()
    dead = []
    for node in reversed(reading.nodes(model)):
        needed = any(
            value.is_graph_output() or any(_alive(use.node, model.graph, alive) for use in value.uses())
            for value in node.outputs
        )
        converts = reading.is_quantize(node) or reading.is_dequantize(node)
        if needed or (converts and not node.outputs[0].uses()):  # a converter that leads nowhere is TQ212's
            alive.add(id(node))
        else:
            dead.append(node)
    return dead[::-1]


def _alive(reader: ir.Node, graph: ir.Graph, alive: set[int]) -> bool:
    return reader.graph is not graph or id(reader) in alive


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.outputs:
        yield from (use.node for use in value.uses())


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
