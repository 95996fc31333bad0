"""TQ903 duplicate-constants: the same weights are stored more than once.

## What it does

Finds initializers that are equal in type, shape and every byte, and reports them where storing each once would make the
file's constants at least 1 % smaller. Single numbers and the parameters of Q/DQ are left out. One finding for each set
of equal constants.

## Why it matters

The file is larger than it has to be, and a tool that quantizes one copy does not quantize the other. Exporters write
copies of shared weights; detection heads that share a branch double its size.

## Fix

All readers use the first of them.

## Fix safety

Lossless.

Sources: ONNX; what exporters of PyTorch write for shared modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import is_pair
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ903", "duplicate-constants"
SMALLEST_SAVING = 0.01

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}>
{
    first = Conv (x, w)
    y = Conv (first, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}, float[2,2,1,1] w_copy = {0.5, 0.25, 1.5, 2.0}>
{
    first = Conv (x, w)
    y = Conv (first, w_copy)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each set of equal constants, where they make up enough of the file."""
    found = _equal(model)
    total = sum(_bytes(value) for value in model.graph.initializers.values())
    spared = sum((len(same) - 1) * _bytes(same[0]) for same in found)
    if not found or spared < SMALLEST_SAVING * total:
        return
    for same in found:
        names = tuple(map(reading.name, same))
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=names,
            removes=(),
            message=f"tensors {listed(names)}: equal, and stored {len(same)} times"
            f" ({(len(same) - 1) * _bytes(same[0]):,} bytes too many); the fix keeps the first",
            safety="lossless",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Make the readers of equal constants use the first, in place; return how many sets were merged."""
    wanted = {finding.tensors for finding in findings}
    merged = 0
    for same in _equal(model):
        if tuple(map(reading.name, same)) not in wanted:
            continue
        merged += 1
        for other in same[1:]:
            ir.convenience.replace_all_uses_with(other, same[0])
            model.graph.initializers.pop(reading.name(other))
    return merged


def _equal(model: ir.Model) -> list[list[ir.Value]]:
    """Return the sets of equal constants; only those of one type, shape and size are read and compared."""
    alike: dict[tuple[str, str], list[ir.Value]] = {}
    for value in model.graph.initializers.values():
        if _counts(value):
            alike.setdefault((str(value.dtype), str(value.shape)), []).append(value)
    found = []
    for values in alike.values():
        equal: dict[bytes, list[ir.Value]] = {}
        for value in values if len(values) > 1 else ():
            array = reading.constant(value)
            if array is not None:
                equal.setdefault(hashlib.sha256(array.tobytes()).digest(), []).append(value)
        found += [same for same in equal.values() if len(same) > 1]
    return found


def _counts(value: ir.Value) -> bool:
    """Tell whether a constant is a weight that may be merged: read, not a single number, not a parameter of Q/DQ."""
    if value.const_value is None or value.const_value.size <= 1:
        return False
    if value.is_graph_input() or value.is_graph_output() or not value.uses():
        return False
    return not any(is_pair(use.node) and use.idx > 0 for use in value.uses())


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
