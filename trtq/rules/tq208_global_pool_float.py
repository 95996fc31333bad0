"""TQ208 global-pool-float: an average pool between int8 kernels reads float.

## What it does

Finds AveragePool and GlobalAveragePool whose result is quantized (directly, or behind Flatten, Reshape and the like) by
all that reads it, and whose input has no Q/DQ pair although everything else around that input could be int8: an int8
convolution writes it, and nothing else reads it in float. One finding for a pool.

## Why it matters

An average is not a maximum: a quantizer cannot cross it, but TensorRT has an int8 pooling kernel for it, used only
between a DequantizeLinear and a QuantizeLinear. Without a pair in front, the convolution before it writes float, the
pool reads and writes float, and the quantizer behind it is a kernel of its own. In a ResNet the last residual sum is
that input, so its quantized residual has to be dequantized again as well. ResNet18 on an A100 with batch 32: 1823
queries a second without, 1990 with a pair before the global average pool.

## Fix

A Q/DQ pair on the pool's input, with the scale of a quantizer that reads the same tensor already. Where nothing
quantizes it, its range is not in the file: `--calibration IMAGES` collects it. No scale is invented.

## Fix safety

Numeric: the pool now averages rounded values.

Sources: TensorRT developer guide, "Explicit quantization" (quantizable layers; "try quantizing layers that do not
commute with Q/DQ"); pass QuantizeSingleInputNodes in verbose build logs of TensorRT 8.5; layer tables of the ResNet18
engines. TensorRT-RTX 1.7 averages in float either way. A ReduceMean is
left alone, since no published engine shows one in int8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trtq.qdq import reading
from trtq.rules import missing_pairs
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.missing_pairs import Place
from trtq.rules.outlook import Outlook, dequantized, is_average_pool, outlook_of

CODE, NAME = "TQ208", "global-pool-float"

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,1,1] z)
<float x_scale = {0.1}, float t_scale = {0.2}, float w_scale = {0.01},
 int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    t = Conv (x_dq, w)
    t_q = QuantizeLinear (t, t_scale, zero)
    t_dq = DequantizeLinear (t_q, t_scale, zero)
    y = Conv (t_dq, w)
    pooled = GlobalAveragePool (t_dq)
    pooled_q = QuantizeLinear (pooled, x_scale, zero)
    pooled_dq = DequantizeLinear (pooled_q, x_scale, zero)
    z = Conv (pooled_dq, w)
}
"""
BAD = GOOD.replace("GlobalAveragePool (t_dq)", "GlobalAveragePool (t)")


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each average pool that could run in int8 but for its float input."""
    pools = _pools(model)
    if not pools:
        return
    outlook = outlook_of(model)
    found = _float(pools, outlook)
    ranges = missing_pairs.ranges_of(model, [place.tensor for place in found], context)
    for place in found:
        name, own, result = reading.name(place.tensor), ranges[id(place.tensor)], place.reader.outputs[0]
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(name,),
            removes=tuple(dict.fromkeys((*outlook.freed(place.tensor), *outlook.freed(result)))),
            message=f"tensor '{name}': averaged in float between int8 kernels (to '{reading.name(result)}'), so"
            f" TensorRT converts around the pool; {own.remedy}",
            safety="numeric",
            fixable=own.known,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Put a Q/DQ pair on each finding's pool input, in place; return how many pairs."""
    wanted = {name for finding in findings for name in finding.tensors}
    found = [one for one in _float(_pools(model), outlook_of(model)) if reading.name(one.tensor) in wanted]
    return missing_pairs.mend(model, found, context, "pool")


def _pools(model: ir.Model) -> list[Place]:
    nodes = (node for node in reading.nodes(model) if is_average_pool(node) and not dequantized(node.inputs[0]))
    return [Place(node, node.inputs[0]) for node in nodes if node.inputs[0] is not None]


def _float(pools: Sequence[Place], outlook: Outlook) -> list[Place]:
    return [one for one in pools if outlook.mends_pool(one.reader)]


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
