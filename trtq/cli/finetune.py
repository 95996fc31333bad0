"""`trtq finetune`: quantization-aware training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, PickleOption, RecipeArgument, print_json
from trtq.cli.progress import progress_bars


def finetune(
    recipe: RecipeArgument,
    source: Annotated[
        Path | None, typer.Option("--from", help="The quantized checkpoint to start from. [default: the recipe's ptq]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The trained checkpoint. [default: in the recipe's folder]")
    ] = None,
    json: JsonOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Train the quantized network towards its float twin (QAT by distillation)."""
    from trtq.config import load_recipe
    from trtq.quant import finetune_recipe

    loaded = load_recipe(recipe)
    start = source or loaded.folder / "ptq" / "quantized.safetensors"
    target = output or loaded.folder / "qat" / "quantized.safetensors"
    with progress_bars() as bars:
        facts = finetune_recipe(loaded, start, target, allow_pickle=allow_pickle, progress=bars("qat: finetune"))
    if json:
        print_json(facts)
    else:
        losses = f"{facts['first_loss']:.4f} to {facts['last_loss']:.4f}"
        print(f"{target}: {facts['iterations']} iterations, loss {losses}")
