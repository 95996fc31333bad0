"""`trtq lint`: what keeps a Q/DQ file from fusing or building."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtq.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from trtq.rules import Finding


class Format(str, Enum):
    """How findings are printed."""

    text = "text"
    github = "github"


def lint(
    model: Annotated[Path, typer.Argument(help="A Q/DQ ONNX file of any producer.", show_default=False)],
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended; needs --output.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the mended file goes.", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Images for ranges that the file does not hold: a folder, a .npy or .npz array, or a recipe.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Only what holds for trt8.5, trt8.6, trt10, trt11, rtx or rtx:sm86.", show_default=False),
    ] = None,
    select: Annotated[list[str] | None, typer.Option(help="Check this rule only; may be repeated.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave this rule out; may be repeated.")] = None,
    form: Annotated[Format, typer.Option("--format", help="text: a table. github: annotations.")] = Format.text,
    json: JsonOption = False,
) -> None:
    """Check a Q/DQ file by TensorRT's rules; exit code 1 while findings remain."""
    from trtq.errors import ConfigError
    from trtq.pipeline.checking import lint_file

    if fix != (output is not None):
        raise ConfigError("--fix and --output go together: say where the mended file goes")
    result = lint_file(model, output, target=target, calibration=calibration, select=select or (), ignore=ignore or ())
    if json:
        remaining = [one.to_json() for one in result.remaining]
        print_json({"file": str(model), "findings": remaining, "mended": result.mended})
    elif form is Format.github:
        for finding in result.remaining:
            print(_annotation(model, finding))
    else:
        _print(model, output, result.findings, result.mended, len(result.remaining))
    raise typer.Exit(1 if result.remaining else 0)


def _print(model: Path, output: Path | None, findings: Sequence[Finding], mended: int, remaining: int) -> None:
    from rich.console import Console

    from trtq.report.text import findings_table

    if findings:
        Console().print(findings_table(findings))
    if output is None:
        print(f"{model}: {remaining} findings" if remaining else f"{model}: clean")
    else:
        print(f"{output}: {mended} mended, {remaining} remain")


def _annotation(model: Path, finding: Finding) -> str:
    """Return a finding as GitHub Actions' workflow command; its values are escaped as the runner unescapes them."""
    title = _escaped(f"{finding.code} {finding.name}").replace(":", "%3A").replace(",", "%2C")
    file = _escaped(str(model)).replace(":", "%3A").replace(",", "%2C")
    return f"::warning file={file},title={title}::{_escaped(finding.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
