"""Quantized checkpoints: weights, calibrated ranges and the ties between them in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from trtq import files
from trtq.config import QuantSpec
from trtq.errors import ModelError
from trtq.quant.calibrate import switch_off
from trtq.quant.insert import Quantized, insert
from trtq.quant.tie import apply_ties

FORMAT = "trtq-quantized-1"


def save_quantized(quantized: Quantized, target: Path) -> None:
    """Write weights, ranges, ties and switched-off quantizers to `target` atomically; raises `OutputError`."""
    tensors = {name: tensor.detach().clone() for name, tensor in quantized.module.state_dict().items()}
    off = [name for name, one in quantized.quantizers.items() if one._disabled]
    # One entry: safetensors writes several in any order, and equal checkpoints should be equal bytes.
    state = {"format": FORMAT, "ties": quantized.ties, "off": off, "notes": quantized.notes}
    files.write_bytes(target, save(tensors, {"trtq": json.dumps(state)}))


def load_quantized(model: nn.Module, spec: QuantSpec, example: torch.Tensor, source: Path) -> Quantized:
    """Return `model` quantized as `source` says; raises `ModelError` when the file is damaged or of another network."""
    try:
        with safe_open(source, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("trtq", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise ModelError(f"{source}: no such file; run `trtq quantize` first") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{source}: is not a safetensors file, or is cut short; run `trtq quantize` again") from error
    if state.get("format") != FORMAT:
        raise ModelError(f"{source}: is not a quantized checkpoint of trtq; run `trtq quantize` again")
    quantized = insert(model, spec, example)
    apply_ties(quantized, tuple(map(tuple, state["ties"])))
    quantized.notes = tuple(state["notes"])
    _register_ranges(quantized.module, tensors)
    try:
        switch_off(quantized, state["off"])
        quantized.module.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"{source}: is a checkpoint of another network or recipe; run `trtq quantize` again"
        ) from error
    return quantized


def _register_ranges(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give every quantizer a buffer of the right shape first: without one, its own loading code asks for CUDA."""
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        if attribute == "_amax":
            try:
                owner: Any = module.get_submodule(path)
            except AttributeError:
                continue  # load_state_dict reports it
            owner.register_buffer("_amax", torch.zeros_like(tensor))
