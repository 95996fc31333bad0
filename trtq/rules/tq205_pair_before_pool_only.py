"""TQ205 pair-before-pool-only: a max pool reads a pair, and the quantizer of its result stands further behind.

## What it does

Finds MaxPools that read what a DequantizeLinear wrote and have no pair of their own behind them, although quantizers of
the same scale stand behind a Concat, another pool or the like that reads their result. Pools that hang together, by a
pair or in a chain, are one finding. A pool with a quantizer directly behind it is fine where nothing else reads its
result, and so is one with none at all: then the pair in front serves the layer behind it.

## Why it matters

The quantizer behind moves backward through the pools and should meet the pair in front. With a DequantizeLinear in
front of the pool and the quantizer not directly behind it, TensorRT-RTX 1.7 stops in between: the pool runs in float,
with one kernel that dequantizes before it and one that quantizes again behind it. An SPPCSPC whose pools read a pair
moves 24 % more bytes of activations than one whose pools read the tensor itself (15.4 against 12.4 MB).

## Fix

The pools read the tensor in front of the pair. The quantizers behind move back to it, and all of it runs in int8. Other
readers of the pair keep it.

## Fix safety

Lossless: a maximum of values on the steps of a scale lies on those steps, and is rounded to the same steps either way.

Sources: TensorRT developer guide, "Explicit quantization" (a QuantizeLinear moves toward the input, max pooling is its
proven case); layer tables of TensorRT-RTX 1.7.1 for single, parallel and chained pools with pairs in front, behind,
on both sides and further behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from trtq.qdq import pairs, reading
from trtq.qdq.groups import is_member, joint_of
from trtq.rules import readers
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.scale_groups import listed

CODE, NAME = "TQ205", "pair-before-pool-only"
POOLS = ("MaxPool", "GlobalMaxPool")

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.1}, float w_scale = {0.01}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
{
    first = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
    second = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (first)
    second_q = QuantizeLinear (second, x_scale, zero)
    second_dq = DequantizeLinear (second_q, x_scale, zero)
    w = DequantizeLinear (w_q, w_scale, zero)
    y = Conv (second_dq, w)
}
"""
BAD = GOOD.replace(
    """    first = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
""",
    """    x_q = QuantizeLinear (x, x_scale, zero)
    x_dq = DequantizeLinear (x_q, x_scale, zero)
    first = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x_dq)
""",
)


@dataclass
class Pools:
    """Max pools that hang together by pairs, and the quantizers of those pairs, which they read."""

    pools: dict[ir.Node, ir.Node] = field(default_factory=dict)

    @property
    def quantizers(self) -> tuple[ir.Node, ...]:
        """The quantizers, each once."""
        return tuple(dict.fromkeys(self.pools.values()))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that they quantize."""
        return tuple(dict.fromkeys(reading.name(one.inputs[0]) for one in self.quantizers))


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for such pools that hang together."""
    for one in _found(model):
        results = [reading.name(pool.outputs[0]) for pool in one.pools]
        plural = "s" if len(one.tensors) > 1 else ""
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=one.tensors,
            removes=tuple(reading.name(quantizer.outputs[0]) for quantizer in one.quantizers),
            message=f"tensor{plural} {listed(one.tensors)}: quantized in front of max pools"
            f" ({listed(results)}) whose results are quantized further behind, so that pools run in float; the fix lets"
            " them read the tensor itself",
            safety="lossless",
            fixable=True,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Let the findings' pools read the tensors in front of the pairs, in place; return how many findings."""
    wanted = {finding.removes for finding in findings}
    found = [one for one in _found(model) if tuple(reading.name(q.outputs[0]) for q in one.quantizers) in wanted]
    for one in found:
        for pool, quantizer in one.pools.items():
            dequantizer = readers.dequantizer_before(pool.inputs[0])
            pool.replace_input_with(0, quantizer.inputs[0])
            if dequantizer is not None:
                pairs.drop(model, dequantizer)
    return len(found)


def _found(model: ir.Model) -> list[Pools]:
    """Return such pools in graph order.

    A pool whose pair another one stops reading has no longer a quantizer alone behind it, so it goes along.
    """
    quantizers = {node: own for node in reading.nodes(model) if (own := _quantizer(node)) is not None}
    if not quantizers:
        return []
    behind = _scales_behind(model)
    fitting = {node for node, own in quantizers.items() if behind[id(node.outputs[0])] == reading.scalar_scale(own)}
    reached = [node for node in fitting if not all(map(reading.is_quantize, node.outputs[0].consumers()))]
    broken = set(reached)
    while reached:
        before = _pool_before(quantizers[reached.pop()])
        if before in fitting and before not in broken:
            broken.add(before)
            reached.append(before)
    found: dict[ir.Node, Pools] = {}
    for node, own in quantizers.items():
        if node in broken:
            before = _pool_before(own)
            key = before if before in broken else own
            found[node] = found[own] = found.get(key) or found.get(own) or Pools()
            found[node].pools[node] = own
    return list({id(one): one for one in found.values()}.values())


def _pool_before(quantizer: ir.Node) -> ir.Node | None:
    """Return the node that writes what `quantizer` reads."""
    return None if quantizer.inputs[0] is None else quantizer.inputs[0].producer()


def _quantizer(pool: ir.Node) -> ir.Node | None:
    """Return the quantizer of the pair that a max pool reads, where both of the pair have one usable scale."""
    if pool.op_type not in POOLS:
        return None
    dequantizer = readers.dequantizer_before(pool.inputs[0])
    quantizer = None if dequantizer is None else readers.quantizer_before(dequantizer)
    if dequantizer is None or quantizer is None or not is_member(quantizer) or len(pool.outputs) > 1:
        return None
    return quantizer if reading.scalar_scale(quantizer) == reading.scalar_scale(dequantizer) else None


def _scales_behind(model: ir.Model) -> dict[int, float | None]:
    """Return, by a tensor's id, the scale of the quantizers through which all that reads it does; linear.

    None where they have several scales, or where something reads the tensor in float or hands it out.
    """
    known: dict[int, float | None] = {}
    for node in reversed(reading.nodes(model)):
        for value in node.outputs:
            scales = {_scale_behind(reader, value, known) for reader in value.consumers()}
            alone = len(scales) == 1 and not value.is_graph_output()
            known[id(value)] = scales.pop() if alone else None
    return known


def _scale_behind(reader: ir.Node, value: ir.Value, known: dict[int, float | None]) -> float | None:
    if is_member(reader):
        return reading.scalar_scale(reader)
    joint = joint_of(reader)
    if joint is None or (not joint.all_inputs and reader.inputs[0] is not value):
        return None
    scales = {known.get(id(output)) for output in reader.outputs if output.uses() or output.is_graph_output()}
    return scales.pop() if len(scales) == 1 else None


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "lossless", EVERY_TARGET, check, fix)
