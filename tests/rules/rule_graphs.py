"""What the tests of rules share: graphs from ONNX text, and what ONNX Runtime makes of them without optimizations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from trtq import rules
from trtq.rules import Context, Finding


def graph(text: str, opset: int = 17, /, **constants: npt.ArrayLike) -> ir.Model:
    """Return the graph in ONNX text, with arrays as further initializers and every node named after its output.

    The text needs no header: `network (float[2] x) => (float[2] y) { y = Relu (x) }`.
    """
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def found(model: ir.Model, code: str, context: Context | None = None) -> list[Finding]:
    """Return what one rule finds."""
    return list(rules.lint(model, select=[code], context=context or Context()))


def mend(model: ir.Model, code: str, context: Context | None = None) -> list[Finding]:
    """Let one rule mend all it can; return its findings before."""
    context = context or Context()
    before = found(model, code, context)
    assert rules.fix(model, before, context=context) == sum(finding.fixable for finding in before)
    assert not [finding for finding in found(model, code, context) if finding.fixable]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return before


def run(model: ir.Model, **feeds: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return the outputs; skips the test where ONNX Runtime is not installed."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install trtq[ort])")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    return list(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feeds))


def operators(model: ir.Model) -> list[str]:
    """Return the operators in graph order."""
    return [node.op_type for node in model.graph]
