"""`trtq quantize`: insert, tie and calibrate quantizers."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, PickleOption, RecipeArgument, print_json
from trtq.cli.progress import progress_bars, say


class Placement(str, Enum):
    """Where quantizers go."""

    ptq = "ptq"
    naive = "naive"


def quantize(
    recipe: RecipeArgument,
    mode: Annotated[
        Placement, typer.Option(help="ptq: tied scales, residual inputs quantized. naive: a bare insertion.")
    ] = Placement.ptq,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The quantized checkpoint. [default: in the recipe's folder]")
    ] = None,
    json: JsonOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Put quantizers into the recipe's network, tie their scales and calibrate them."""
    from trtq.config import load_recipe
    from trtq.quant import quantize_recipe

    loaded = load_recipe(recipe)
    target = output or loaded.folder / mode.value / "quantized.safetensors"
    with progress_bars() as bars:
        facts = quantize_recipe(
            loaded,
            target,
            naive=mode is Placement.naive,
            allow_pickle=allow_pickle,
            progress=bars(f"{mode.value}: calibrate"),
        )
    for note in facts["notes"]:
        say(f"  note: {note}")
    if json:
        print_json(facts)
    else:
        print(f"{target}: {facts['quantizers']} quantizers calibrated, {len(facts['ties'])} groups share a scale")
