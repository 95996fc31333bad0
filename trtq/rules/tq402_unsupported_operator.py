"""TQ402 unsupported-operator: the target's own parser refuses a node.

## What it does

Asks the parser of TensorRT-RTX, where that is installed and the target may be it, what it refuses, and reports each
refused node by the tensor that it writes, with the parser's reason. Without a parser there is nothing to report. One
finding for a tensor. The parser reads the file in a process of its own while other rules are checked, with a limit to
its time and one to its memory; where it dies of the file or crosses one, that is a finding about the whole file.

## Why it matters

No engine is built from such a file. Two-stage detectors (NonMaxSuppression, RoiAlign, NonZero) and custom domains are
the usual cases: what comes behind belongs outside the engine.

## Fix

None. Cut the network in front of the operator, or replace it by ones that the target takes. Where another rule reports
the same tensor, its fix may be all that is needed.

## Fix safety

Needs review.

Sources: the parser of the installed TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule

CODE, NAME = "TQ402", "unsupported-operator"

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
    y = Hardmax (x)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor whose node the target's parser refuses."""
    if context.refusals is None:
        return
    for tensor, reason in dict(context.refusals(model)).items():
        if tensor is None:
            yield _finding(str(model.graph.outputs[0].name), f"{reason}; no engine is built of it")
        else:
            yield _finding(tensor, f"tensor '{tensor}': the parser refuses what writes it ({reason})")


def _finding(tensor: str, message: str) -> Finding:
    return Finding(CODE, NAME, (tensor,), (), message, safety="needs review", fixable=False)


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
