"""Clean what an exporter wrote: Constants to initializers, no Identity, unique names, weights stored as int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trtq.qdq import editing, reading


def clean(model: ir.Model) -> None:
    """Bring an exported graph into the plain form that the rules and every TensorRT read, in place.

    Constant nodes become initializers, Identity and unused nodes go, equal small constants are shared, and every node
    gets a name of its own (TensorRT-RTX merges nodes of one name in its layer table).
    """
    ir.passes.Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.NameFixPass(),
    )(model)


def store_int8_weights(model: ir.Model) -> int:
    """Replace float weights followed by Q and DQ with int8 initializers followed by DQ, in place; return how many.

    Same numbers, a quarter of the bytes. TensorRT 8 takes only the float form; 10, 11, RTX and ONNX Runtime take both.
    Arithmetic: ONNX QuantizeLinear, saturate(round_half_even(x / scale) + zero point).
    """
    folded = 0
    taken = editing.names(model)
    for node in list(model.graph):
        if not reading.is_quantize(node) or reading.is_activation(node) or not reading.is_symmetric_int8(node):
            continue
        weights, scales = reading.constant(node.inputs[0]), reading.scale(node)
        if weights is None or scales is None:
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        name = editing.unused_name(f"{reading.name(reading.source(node.inputs[0]))}_int8", taken)
        value = editing.add_initializer(model, name, quantize(weights, scales, axis))
        node.outputs[0].replace_all_uses_with(value)
        folded += 1
    passes.RemoveUnusedNodesPass()(model)
    return folded


def quantize(values: npt.NDArray[Any], scales: npt.NDArray[Any], axis: int) -> npt.NDArray[np.int8]:
    """Return symmetric int8 of float `values` by scalar or per-`axis` `scales`, as ONNX QuantizeLinear rounds.

    Half precision is divided in float32, as ONNX Runtime does: dividing in float16 moves some values by one code.
    """
    values, scales = values.astype(np.float32), scales.astype(np.float32)
    if scales.size > 1:
        shape = [1] * values.ndim
        shape[axis] = scales.size
        scales = scales.reshape(shape)
    quantized: npt.NDArray[np.int8] = np.clip(np.rint(values / scales), -128, 127).astype(np.int8)
    return quantized
