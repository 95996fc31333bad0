"""`trtq eval`: the accuracy of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import progress_bars


def evaluate(
    model: Annotated[Path, typer.Argument(help="An ONNX file that trtq exported.", show_default=False)],
    recipe: Annotated[Path, typer.Option(help="The recipe whose validation images are used.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Measure the accuracy of an ONNX file on a recipe's validation images, with ONNX Runtime on the CPU."""
    from trtq.config import load_recipe
    from trtq.pipeline.steps import accuracy

    loaded = load_recipe(recipe)
    with progress_bars() as bars:
        result = accuracy(loaded, model, progress=bars("eval"))
    if json:
        print_json({"file": str(model), **result})
        return
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result.items() if name != "images")
    print(f"{model}: {figures} (measured on {result['images']} images, ONNX Runtime)")
