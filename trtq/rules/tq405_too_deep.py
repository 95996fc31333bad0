"""TQ405 too-deep: one chain of operators is so long that the builder overflows its stack.

## What it does

Counts the operators on the longest path through the network, local functions unfolded, and reports more than 2500.

## Why it matters

The builder walks the graph recursively. With the usual stack of 8 MiB TensorRT-RTX dies (a segmentation fault, no
message) on a chain of 3000 pointwise operators; 2500 still build. Such chains come from unrolled loops.

## Fix

None in the file. `trtq build` gives the builder a stack of 512 MiB, which is enough for far longer chains; with other
tools raise the limit (`ulimit -s unlimited`) or build in a thread with a larger stack. Better: keep the loop a loop.

## Fix safety

Needs review.

Sources: builds of TensorRT-RTX 1.7 with chains of 2500 and 3000 operators at an 8 MiB stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ405", "too-deep"
DEEPEST = 2500

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = Relu (x)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
{
    y = local.chain4096 (x)
}
<domain: "local", opset_import: ["" : 17]>
chain8 (x) => (y) { a = Relu (x) b = Relu (a) c = Relu (b) d = Relu (c) e = Relu (d) f = Relu (e) g = Relu (f)
 y = Relu (g) }
<domain: "local", opset_import: ["local" : 1]>
chain64 (x) => (y) { a = local.chain8 (x) b = local.chain8 (a) c = local.chain8 (b) d = local.chain8 (c)
 e = local.chain8 (d) f = local.chain8 (e) g = local.chain8 (f) y = local.chain8 (g) }
<domain: "local", opset_import: ["local" : 1]>
chain512 (x) => (y) { a = local.chain64 (x) b = local.chain64 (a) c = local.chain64 (b) d = local.chain64 (c)
 e = local.chain64 (d) f = local.chain64 (e) g = local.chain64 (f) y = local.chain64 (g) }
<domain: "local", opset_import: ["local" : 1]>
chain4096 (x) => (y) { a = local.chain512 (x) b = local.chain512 (a) c = local.chain512 (b) d = local.chain512 (c)
 e = local.chain512 (d) f = local.chain512 (e) g = local.chain512 (f) y = local.chain512 (g) }
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield a finding where the longest path through the network is too long."""
    depth, end = _deepest(model.graph, _function_depths(model))
    if depth > DEEPEST and end is not None:
        name = reading.name(end)
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=(),
            message=f"tensor '{name}': {depth} operators lie before it in one chain, and beyond {DEEPEST} a builder"
            " with a usual stack crashes; build with `trtq build`, or raise the stack's limit",
            safety="needs review",
            fixable=False,
        )


def _function_depths(model: ir.Model) -> dict[tuple[str, str], int]:
    """Return the depth of each local function; ONNX forbids recursion, so each round settles at least one."""
    depths: dict[tuple[str, str], int] = {}
    waiting = {(one.domain, one.name): one for one in model.functions.values()}
    while waiting:
        ready = [
            key
            for key, function in waiting.items()
            if not any((node.domain, node.op_type) in waiting for node in function)
        ]
        if not ready:
            break
        for key in ready:
            depths[key] = _deepest(waiting.pop(key), depths)[0]
    return depths


def _deepest(graph: ir.Graph | ir.Function, functions: Mapping[tuple[str, str], int]) -> tuple[int, ir.Value | None]:
    """Return the number of operators on the longest path, and the tensor at its end."""
    depths: dict[int, int] = {}
    deepest, end = 0, None
    for node in graph:
        own = functions.get((node.domain, node.op_type), 0 if node.op_type in ("Constant", "Identity") else 1)
        depth = own + max((depths.get(id(one), 0) for one in node.inputs), default=0)
        for value in node.outputs:
            depths[id(value)] = depth
        if depth > deepest and node.outputs:
            deepest, end = depth, node.outputs[0]
    return deepest, end


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
