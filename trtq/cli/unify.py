"""`trtq unify`: one scale a group."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from trtq.cli.options import JsonOption, print_json


class PolicyName(str, Enum):
    """Which scale a group gets."""

    max = "max"
    output = "output"


def unify(
    model: Annotated[Path, typer.Argument(help="A Q/DQ ONNX file of any producer.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the unified file goes.", show_default=False)],
    policy: Annotated[
        PolicyName, typer.Option(help="max: the widest of the group. output: the one nearest to the consumer.")
    ] = PolicyName.max,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let the output be the input.")] = False,
    json: JsonOption = False,
) -> None:
    """Give tensors that TensorRT would have to convert between one scale, and say what it costs."""
    from trtq import qdq

    result = qdq.unify_file(model, output, policy.value, overwrite=overwrite)
    document = result.to_json()
    if json:
        print_json(document)
        return
    from rich.console import Console

    from trtq.report.text import groups_table

    differing = [group for group in document["groups"] if len(set(group["scales"])) > 1]
    if differing:
        Console().print(groups_table(differing))
    edges = len(result.edits)
    print(f"{output}: {len(document['groups'])} scale groups, {len(differing)} differed, {edges} edges changed")
