"""`trtq unify`: one scale a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import progress_bars

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from trtq.qdq import Observe


class PolicyName(str, Enum):
    """Which scale a group gets."""

    max = "max"
    output = "output"
    weighted = "weighted"


def unify(
    model: Annotated[Path, typer.Argument(help="A Q/DQ ONNX file of any producer.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the unified file goes.", show_default=False)],
    policy: Annotated[
        PolicyName,
        typer.Option(
            help="max: the widest of the group. output: the one nearest to the consumer. weighted: the least noise, "
            "from --calibration where given."
        ),
    ] = PolicyName.max,
    leave: Annotated[
        list[str] | None,
        typer.Option(
            help="Let the groups of this tensor, operator (Concat) or rule (TQ101) keep their scales; may be repeated.",
            show_default=False,
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="DB",
            help="Let a group keep its scales that loses more: measured with --measure, else predicted.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="Predict from these: a folder of pictures, an array (.npy, .npz), or a recipe (.toml).",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES", help="Run before and after on these in ONNX Runtime, group by group.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let the output be the input.")] = False,
    json: JsonOption = False,
) -> None:
    """Give tensors that TensorRT would have to convert between one scale, and say what it costs."""
    from trtq import qdq

    choice = qdq.Choice(
        policy=policy.value,
        leave=tuple(_words(model, leave or ())),
        max_loss_db=max_loss,
        calibration=None if calibration is None else _observing(calibration),
        measurement=None if measure is None else _observing(measure),
    )
    with progress_bars() as bars:
        result = qdq.unify_file(model, output, choice, overwrite=overwrite, progress=bars("groups measured"))
    document = result.to_json()
    if json:
        print_json(document)
    else:
        _print(output, document)


def _observing(images: Path) -> Observe:
    """Return what runs a network over `images` in ONNX Runtime."""
    from trtq import ptq
    from trtq.data.images import load_images

    def observe(model: ir.Model, tensors: Sequence[str]) -> Iterable[Mapping[str, npt.NDArray[Any]]]:
        return ptq.observe(model, tensors, load_images(images, ptq.input_shape(model)))

    return observe


def _words(model: Path, words: Sequence[str]) -> Iterable[str]:
    """Yield `words`, each rule's code replaced by a tensor of each of its findings."""
    from trtq import qdq, rules

    codes = {rule.code for rule in rules.RULES}
    asked = [word for word in words if word in codes]
    graph = qdq.load(model) if asked else None
    for word in words:
        if graph is not None and word in codes:
            yield from (finding.tensors[0] for finding in rules.lint(graph, select=[word]))
        else:
            yield word


def _print(output: Path, document: Mapping[str, Any]) -> None:
    from rich.console import Console

    from trtq.report.text import groups_table
    from trtq.report.wording import printable

    differing = [group for group in document["groups"] if len(set(group["scales"])) > 1]
    left = [group for group in differing if group["left"]]
    if differing:
        Console().print(groups_table(differing))
    for group in left:
        print(f"left: {printable(group['tensors'][0])} and what it is joined with ({printable(group['reason'])})")
    for one in document["output_change"]:
        print(f"output {printable(one['output'])}: SQNR {one['sqnr_db']:.2f} dB, largest change {one['largest']:.4g}")
    counts = f"{len(differing)} differed, {len(left)} left, {len(document['edits'])} edges changed"
    print(f"{output}: {len(document['groups'])} scale groups, {counts}")
