"""`trtq export`: the network as ONNX."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, PickleOption, RecipeArgument, print_json


class Exported(str, Enum):
    """What is exported."""

    fp32 = "fp32"
    naive = "naive"
    ptq = "ptq"
    qat = "qat"


def export(
    recipe: RecipeArgument,
    mode: Annotated[Exported, typer.Option(help="fp32: the float network. ptq, qat, naive: a quantized checkpoint.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="The quantized checkpoint. [default: the recipe's]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The ONNX file. [default: in the recipe's folder]")
    ] = None,
    json: JsonOption = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Export the network to ONNX, with Q/DQ nodes where it is quantized."""
    from trtq.config import load_recipe
    from trtq.quant import export_recipe

    loaded = load_recipe(recipe)
    folder = loaded.folder / mode.value
    checkpoint = None if mode is Exported.fp32 else source or folder / "quantized.safetensors"
    target = output or folder / ("exported.onnx" if mode in (Exported.ptq, Exported.qat) else "model.onnx")
    naive = mode is Exported.naive
    facts = export_recipe(loaded, checkpoint, target, naive=naive, allow_pickle=allow_pickle)
    if json:
        print_json(facts)
    else:
        print(f"{target}: {facts['onnx_bytes'] / 1e6:.2f} MB")
