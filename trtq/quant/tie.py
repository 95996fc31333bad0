"""Tie: make quantizers whose tensors must share one scale one quantizer, before calibration and during training."""

from __future__ import annotations

from typing import Any

import torch

from trtq import qdq
from trtq.errors import ModelError
from trtq.quant.export import to_onnx
from trtq.quant.insert import INT8_BOUND, Quantized


def tie(quantized: Quantized, example: torch.Tensor, opset: int) -> None:
    """Find the scale groups of the network and let each group's quantizers be one object, in place.

    The groups come from the ONNX graph that TensorRT will see. A probe export gives every quantizer a scale of its
    own, so that it is recognised by its scale: neither names nor the exporter's merging of equal nodes matter.
    `example` is float32 (n, c, h, w).
    """
    names = list(quantized.quantizers)
    quantizers: list[Any] = list(quantized.quantizers.values())
    for number, quantizer in enumerate(quantizers, start=1):
        quantizer.register_buffer("_amax", torch.tensor(float(number * INT8_BOUND)))
    probe = to_onnx(quantized.module, example, opset)
    for quantizer in quantizers:
        del quantizer._amax
    groups = [sorted({int(scale) - 1 for scale in group.scales}) for group in qdq.groups(probe)]
    apply_ties(quantized, tuple(tuple(names[i] for i in group) for group in groups if len(group) > 1))


def apply_ties(quantized: Quantized, ties: tuple[tuple[str, ...], ...]) -> None:
    """Replace the quantizers of each tie by the first one's; raises `ModelError` for unknown ones."""
    for group in ties:
        for name in group:
            if name not in quantized.quantizers:
                raise ModelError(
                    f"quantizer '{name}' is not in this network: the ties are of another network or recipe"
                )
        first = quantized.quantizers[group[0]]
        for name in group[1:]:
            path, _, attribute = name.rpartition(".")
            owner = quantized.module.get_submodule(path)
            # QuantConv2d keeps its input quantizer as `_input_quantizer`; residual quantizers have their plain name.
            setattr(owner, "_input_quantizer" if attribute == "input_quantizer" else attribute, first)
            quantized.quantizers[name] = first
    quantized.ties = ties
