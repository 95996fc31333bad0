"""The torch stages of a recipe: each is one function, file in and file out, and one command of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trtq import data
from trtq.config import Recipe
from trtq.models import load_model
from trtq.models.yolov7 import settle_batchnorm
from trtq.quant.calibrate import Progress, calibrate
from trtq.quant.checkpoint import load_quantized, save_quantized
from trtq.quant.export import export
from trtq.quant.finetune import finetune
from trtq.quant.insert import fold, insert
from trtq.quant.tie import tie

SETTLING_IMAGES = 8
# One batch's loss says little: the first and last are means over this many iterations.
LOSS_WINDOW = 10


def quantize_recipe(
    recipe: Recipe, target: Path, *, naive: bool = False, allow_pickle: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Load, fold, insert quantizers, tie, calibrate; write the quantized checkpoint to `target`; return what was done.

    naive: one quantizer per convolution and linear input, none tied, residual inputs left float: what a bare insertion
    gives, as a reference. Raises what loading, data and calibration raise, and `OutputError`.
    """
    model, example = _prepare(recipe, allow_pickle)
    spec = replace(recipe.quantization, tie=False, residual=False) if naive else recipe.quantization
    quantized = insert(model, spec, example)
    if spec.tie:
        tie(quantized, example, recipe.engine.opset)
    images = data.load(recipe.data, "calibration", recipe.seed, recipe.path.parent)
    calibrate(quantized, images, spec, batch=recipe.data.batch, progress=progress)
    save_quantized(quantized, target)
    return {
        "quantizers": len(quantized.quantizers),
        "ties": [list(one) for one in quantized.ties],
        "notes": list(quantized.notes),
    }


def finetune_recipe(
    recipe: Recipe, source: Path, target: Path, *, allow_pickle: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train the quantized checkpoint `source` towards its float twin and write it to `target`; return the losses.

    Raises what loading and data raise, `ModelError` when the loss diverges, and `OutputError`.
    """
    model, example = _prepare(recipe, allow_pickle)
    quantized = load_quantized(model, recipe.quantization, example, source)
    images = data.load(recipe.data, "train", recipe.seed, recipe.path.parent)
    losses = finetune(quantized, fold(model), images, recipe.finetune, seed=recipe.seed, progress=progress)
    save_quantized(quantized, target)
    window = min(LOSS_WINDOW, len(losses))
    first, last = sum(losses[:window]) / window, sum(losses[-window:]) / window
    return {"iterations": len(losses), "first_loss": round(first, 6), "last_loss": round(last, 6)}


def export_recipe(
    recipe: Recipe, source: Path | None, target: Path, *, naive: bool = False, allow_pickle: bool = False
) -> dict[str, Any]:
    """Write the ONNX file of the float network, or of the quantized checkpoint `source`; return its size.

    naive: `source` was quantized with `naive`. Raises what loading raises, `ModelError` and `OutputError`.
    """
    model, example = _prepare(recipe, allow_pickle)
    spec = replace(recipe.quantization, tie=False, residual=False) if naive else recipe.quantization
    module = fold(model) if source is None else load_quantized(model, spec, example, source).module
    export(
        module,
        example,
        target,
        opset=recipe.engine.opset,
        weights=recipe.engine.weights,
        metadata=_metadata(model),
        dynamic_batch=bool(recipe.engine.dynamic_batch),
    )
    return {"onnx_bytes": target.stat().st_size}


def _prepare(recipe: Recipe, allow_pickle: bool) -> tuple[nn.Module, torch.Tensor]:
    """Fix what decides the bytes that come out (seed, threads, algorithms), and return the network and an input."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    # What `use_deterministic_algorithms` sets, without its import of torch's compiler: more than a second a stage.
    torch.set_deterministic_debug_mode("error")
    model = load_model(recipe.model, recipe.checkpoint, allow_pickle=allow_pickle)
    if recipe.checkpoint is None:
        images = data.load(recipe.data, "calibration", recipe.seed, recipe.path.parent)
        count = min(SETTLING_IMAGES, len(images))
        settle_batchnorm(model, torch.stack([torch.from_numpy(images[i].image) for i in range(count)]))
    size = recipe.data.image_size
    return model, torch.zeros(recipe.engine.batch, 3, size, size)


def _metadata(model: nn.Module) -> Mapping[str, Any]:
    decode = getattr(model, "decode_spec", None)
    return {} if decode is None else {"decode": decode()}
