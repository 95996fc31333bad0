"""TQ311 bad-weights: a weight holds NaN or infinity.

## What it does

Finds float constants that a Conv, ConvTranspose, Gemm, MatMul or a normalization reads, directly or through Q/DQ, and
that are not finite everywhere. One finding for a tensor.

## Why it matters

TensorRT builds such a file without a word, and the engine's outputs are NaN or saturated. Quantization makes it worse:
NaN becomes some integer, so the numbers look sane and are not. The usual causes are a diverged training run and an
overflow in a conversion to float16.

## Fix

None: what the weights should be is not in the file. Export a checkpoint from before the divergence, or keep the layer
in float32.

## Fix safety

Needs review.

Sources: IEEE 754; TensorRT-RTX 1.7 accepts NaN weights silently.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import is_pair

CODE, NAME = "TQ311", "bad-weights"
NORMALIZING = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "PRelu")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2,2,1,1] w = {0.5, 0.25, 1.5, 2.0}>
{
    y = Conv (x, w)
}
"""
BAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float[2,2,1,1] w = {0.5, nan, 1.5, inf}>
{
    y = Conv (x, w)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each weight that is not finite everywhere."""
    seen: set[int] = set()
    for node in reading.nodes(model):
        read = node.inputs if node.op_type in reading.WEIGHTED + NORMALIZING else ()
        for value in (_behind_pair(one) for one in read):
            if value is None or id(value) in seen:
                continue
            seen.add(id(value))
            fault = _fault(value)
            if fault is not None:
                yield Finding(
                    code=CODE,
                    name=NAME,
                    tensors=(reading.name(value),),
                    removes=(),
                    message=f"tensor '{reading.name(value)}': {fault}, so the engine computes garbage without an"
                    " error; export an earlier checkpoint",
                    safety="needs review",
                    fixable=False,
                )


def _behind_pair(value: ir.Value | None) -> ir.Value | None:
    """Return the constant behind Identity, a Q and a DQ; None for an activation."""
    value = reading.source(value)
    producer = None if value is None else value.producer()
    if producer is not None and is_pair(producer):
        value = reading.quantized_tensor(producer)
    return value if reading.is_constant(value) else None


def _fault(value: ir.Value) -> str | None:
    """Return what is wrong with a constant, in words, or None."""
    if value.dtype is not None and not value.dtype.is_floating_point():
        return None
    values = reading.constant(value)
    if values is None or values.dtype.kind in "iub":
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    nans = int(np.isnan(values).sum())
    infinite = int((~finite).sum()) - nans
    counted = [f"{count} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite")) if count]
    return f"{' and '.join(counted)} of {values.size} weights"


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "needs review", EVERY_TARGET, check, None)
