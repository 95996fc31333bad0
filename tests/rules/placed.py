"""Small Q/DQ networks for the placement rules, written as node lines, and what a fix has to keep."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from tests.rules.rule_graphs import graph, mend, run
from trtq import rules
from trtq.rules import Finding

OUTPUT = "float[1,2,h,w] y"
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((1, 2, 6, 6)).astype(np.float32)
SCALES: dict[str, np.float32 | np.int8] = {
    "s": np.float32(0.05),
    "t": np.float32(0.08),
    "ws": np.float32(0.01),
    "zero": np.int8(0),
}
W_Q = np.array([[[[10]], [[-20]]], [[[30]], [[40]]]], np.int8)
WIDE_Q = RANDOM.integers(-90, 90, (2, 2, 3, 3), dtype=np.int8)


def network(body: str, outputs: str = OUTPUT, opset: int = 17, /, **constants: npt.ArrayLike) -> ir.Model:
    """A network of x (1, 2, 6, 6) in which `a -> b @ s` is short for a Q/DQ pair; w and wide are int8 weights."""
    lines = [f"{name} = DequantizeLinear ({name}_q, ws, zero)" for name in ("w", "wide") if f", {name})" in body]
    for line in map(str.strip, body.strip().splitlines()):
        source, arrow, rest = line.partition(" -> ")
        target, _, scale = rest.partition(" @ ")
        if arrow:
            lines.append(f"{target}_q = QuantizeLinear ({source}, {scale}, zero)")
            lines.append(f"{target} = DequantizeLinear ({target}_q, {scale}, zero)")
        else:
            lines.append(line)
    text = f"network (float[1,2,6,6] x) => ({outputs}) {{ {' '.join(lines)} }}"
    used: dict[str, npt.ArrayLike] = {"w_q": W_Q, "wide_q": WIDE_Q, **SCALES, **constants}
    return graph(text, opset, **{name: used[name] for name in used if f" {name}" in text or f"({name}" in text})


def codes(model: ir.Model) -> list[str]:
    return [finding.code for finding in rules.lint(model)]


def mended_alike(model: ir.Model, code: str, tolerance: float = 0) -> list[Finding]:
    """Mend by one rule and check that the outputs stay the same."""
    (before,) = run(model, x=X)
    findings = mend(model, code)
    (after,) = run(model, x=X)
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
    return findings


POOL = "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
