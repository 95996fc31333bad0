"""TQ308 mixed-dtypes: input, scale and output of a Q/DQ pair are not all of one float type.

## What it does

Finds Q/DQ whose float input, scales and float output are not of the same type, for example float32 activations with
float16 scales. Types that the file does not state are followed through the graph. One finding for a tensor.

## Why it matters

TensorRT from 10 takes FLOAT, HALF or BFLOAT16 scales only where input and output have the same type. Else it stops with
"No matching rules found for input operand types", and not everywhere: the same file built on a Thor and failed on an
Orin with the same TensorRT (NVIDIA/TensorRT issue 4832). Converters to FP16 leave such pairs behind.

## Fix

The scales take the type of what is quantized (of stored integers: the type of the output). Where the pair wrote another
type, a Cast behind it keeps that.

## Fix safety

Lossless where scales become wider; numeric where they are rounded to a half. A scale too small for a normal half is not
changed.

Sources: NvInfer.h 11.1, IQuantizeLayer; NVIDIA/TensorRT issue 4832; NVIDIA/Model-Optimizer issue 118.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trtq.qdq import editing, reading
from trtq.rules.dtypes import float_types
from trtq.rules.finding import EVERY_TARGET, Context, Finding, Rule
from trtq.rules.regions import Region, by_tensor, pairs, regions

CODE, NAME = "TQ308", "mixed-dtypes"
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

GOOD = """
<ir_version: 10, opset_import: ["" : 23]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float x_scale = {0.25}, int8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y = DequantizeLinear (x_q, x_scale, zero)
}
"""
BAD = """
<ir_version: 10, opset_import: ["" : 23]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float16 x_scale = {13312}, int8 zero = {0}>
{
    x_q = QuantizeLinear (x, x_scale, zero)
    y_half = DequantizeLinear (x_q, x_scale, zero)
    y = Cast <to = 1> (y_half)
}
"""


def check(model: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield one finding for each tensor whose Q/DQ mix float types."""
    types = float_types(model)
    for tensor, found in by_tensor(_mixed(model, types)).items():
        seen = dict.fromkeys(one for region in found for one in _types(region, types))
        fixable = all(_new_type(region, types) is not None for region in found)
        remedy = "the fix gives the scales the input's type" if fixable else "give all of them one type"
        yield Finding(
            code=CODE,
            name=NAME,
            tensors=(tensor,),
            removes=(),
            message=f"tensor '{tensor}': input, scale and output of its Q/DQ mix"
            f" {' and '.join(one.name.lower() for one in seen)}, which some builds of TensorRT refuse; {remedy}",
            safety="numeric" if fixable else "needs review",
            fixable=fixable,
        )


def fix(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give the scales of the findings' tensors the type of what is quantized, in place; return how many tensors."""
    wanted = {name for finding in findings for name in finding.tensors}
    types = float_types(model)
    found = by_tensor(_mixed(model, types))
    taken = editing.names(model) if found else set()
    mended = 0
    for name, same in found.items():
        new = [_new_type(region, types) for region in same]
        if name not in wanted or None in new:
            continue
        mended += 1
        for region, dtype in zip(same, new, strict=True):
            assert dtype is not None
            for node in region.nodes:
                _retype(model, node, dtype, types, taken)
    return mended


def _mixed(model: ir.Model, types: Mapping[int, ir.DataType]) -> Iterator[Region]:
    seen = {dtype for node in pairs(model) for dtype in _types_at(node, types)}
    for region in regions(model) if len(seen) > 1 else ():
        if len(set(_types(region, types))) > 1:
            yield region


def _types(region: Region, types: Mapping[int, ir.DataType]) -> Iterator[ir.DataType]:
    """Yield the known float types around a region: of what goes in, of the scales, of what comes out."""
    for node in region.nodes:
        yield from _types_at(node, types)


def _types_at(node: ir.Node, types: Mapping[int, ir.DataType]) -> Iterator[ir.DataType]:
    scale = reading.source(node.inputs[1])
    value = node.inputs[0] if reading.is_quantize(node) else node.outputs[0]
    for one in (value, scale):
        dtype = None if one is None else types.get(id(one), one.dtype)
        if dtype in FLOATS:
            yield dtype


def _new_type(region: Region, types: Mapping[int, ir.DataType]) -> ir.DataType | None:
    """Return the type that the region's scales should have, None where they cannot have it."""
    dtype = next(_types(region, types), None)
    scales = [reading.scale(node) for node in region.nodes]
    if dtype is None or any(one is None for one in scales):
        return None
    if dtype is ir.DataType.FLOAT16:
        smallest = float(np.finfo(np.float16).tiny)
        largest = float(np.finfo(np.float16).max)
        if any(one is not None and not ((one >= smallest) & (one <= largest)).all() for one in scales):
            return None
    return dtype


def _retype(
    model: ir.Model, node: ir.Node, dtype: ir.DataType, types: Mapping[int, ir.DataType], taken: set[str]
) -> None:
    """Give a Q or DQ node a scale of type `dtype`; a DequantizeLinear's readers go on reading the type they did."""
    old, scale = node.inputs[1], reading.scale(node)
    assert scale is not None
    written = types.get(id(node.outputs[0]), node.outputs[0].dtype)
    if old is not None and old.dtype is not dtype:
        label = editing.unused_name(f"{reading.name(old)}_{dtype.name.lower()}", taken)
        node.replace_input_with(1, editing.add_initializer(model, label, scale.astype(dtype.numpy())))
        editing.drop_unused(model, old)
    if reading.is_quantize(node) or written in (None, dtype):
        return
    assert written is not None
    node.attributes.pop("output_dtype", None)
    _cast_behind(model, node, dtype, written, taken)


def _cast_behind(model: ir.Model, node: ir.Node, dtype: ir.DataType, written: ir.DataType, taken: set[str]) -> None:
    """Put a Cast behind a DequantizeLinear; the Cast takes over the name, which may be an output of the network."""
    output = node.outputs[0]
    inner = editing.unused_name(f"{reading.name(output)}_{dtype.name.lower()}", taken)
    value = ir.Value(name=inner, shape=output.shape, type=ir.TensorType(dtype))
    inputs, attributes = list(node.inputs), list(node.attributes.values())
    dequantize = ir.Node("", reading.DEQUANTIZE, inputs, attributes, outputs=[value], name=node.name)
    name = editing.unused_name(f"{reading.name(output)}_cast", taken)
    cast = ir.node("Cast", [value], attributes={"to": int(written)}, name=name)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(written), output.shape
    model.graph.insert_before(node, [dequantize, cast])
    ir.convenience.replace_all_uses_with(output, cast.outputs[0], replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    cast.outputs[0].name = output.name


RULE = Rule(CODE, NAME, __doc__, BAD, GOOD, "numeric", EVERY_TARGET, check, fix)
