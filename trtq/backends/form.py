"""The form of an ONNX file that a TensorRT takes: what one version wants, what a file has, and where they differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx

from trtq.backends.dialects import Weights

Floats = Literal["float32", "float16", "any"]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxForm:
    """The form of an ONNX file.

    opset: of a file its own, of a want the highest. quantizers: whether it holds Q/DQ nodes. weights: how quantized
    weights are stored; a want of "int8" takes both. floats: the type of what is not quantized; a want of "any" takes
    what is there.
    """

    opset: int
    quantizers: bool
    weights: Weights
    floats: Floats

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        """Say the form in words, as a want."""
        quantizers = f"Q/DQ with {self.weights} weights" if self.quantizers else "no Q/DQ"
        floats = "floats as written" if self.floats == "any" else f"floats in {self.floats}"
        return f"opset <= {self.opset}, {quantizers}, {floats}"


def form_of(model: onnx.ModelProto) -> OnnxForm:
    """Return the form of a network; a file with any FP16 or BF16 weight counts as float16."""
    types = {one.name: one.data_type for one in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)]
    stored = any(
        node.op_type == DEQUANTIZE and node.input and types.get(node.input[0]) == onnx.TensorProto.INT8
        for node in quantizers
    )
    return OnnxForm(
        opset=max((one.version for one in model.opset_import if one.domain in STANDARD_DOMAINS), default=1),
        quantizers=bool(quantizers),
        weights="int8" if stored else "float",
        floats="float16" if any(kind in HALF for kind in types.values()) else "float32",
    )


def misfit(wanted: OnnxForm, found: OnnxForm, product: str) -> str | None:
    """Return what a file has that `product` does not take, and what to do about it; None where it fits.

    Q/DQ are not compared: they are what makes a mode explicit, and the planner reads them.
    """
    if found.opset > wanted.opset:
        return (
            f"it is opset {found.opset}, and {product} takes opsets up to {wanted.opset}; export it with opset "
            f"{wanted.opset} or lower (in a recipe: engine.opset)"
        )
    if found.quantizers and found.weights == "int8" and wanted.weights == "float":
        return (
            f"its weights are stored as int8, and {product} wants float weights behind Q/DQ; export it with float "
            'weights (in a recipe: engine.weights = "float")'
        )
    if wanted.floats == "float16" and found.floats == "float32":
        return (
            f"it is a float32 file, and {product} takes FP16 from the file alone; convert it first (a recipe's fp16 "
            "mode does)"
        )
    if wanted.floats == "float32" and found.floats == "float16":
        return "it holds FP16 weights, so it is no FP32 network; build it with --mode fp16"
    return None
