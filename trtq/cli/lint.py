"""`trtq lint`: what keeps a Q/DQ file from fusing or building."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtq.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from trtq.rules import Finding


def lint(
    model: Annotated[Path, typer.Argument(help="A Q/DQ ONNX file of any producer.", show_default=False)],
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended; needs --output.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the mended file goes.", show_default=False)
    ] = None,
    select: Annotated[list[str] | None, typer.Option(help="Check this rule only; may be repeated.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave this rule out; may be repeated.")] = None,
    json: JsonOption = False,
) -> None:
    """Check a Q/DQ file by TensorRT's rules; exit code 1 while findings remain."""
    from trtq import files, qdq, rules
    from trtq.errors import ConfigError

    if fix != (output is not None):
        raise ConfigError("--fix and --output go together: say where the mended file goes")
    if output is not None and output.resolve() == model.resolve():
        raise ConfigError(f"{output}: is the input itself; choose another output")
    graph = qdq.load(model)
    findings = rules.lint(graph, select=select or (), ignore=ignore or ())
    mended = rules.fix(graph, findings) if output is not None else 0
    if output is not None:
        if mended:
            qdq.save(graph, output)
        else:
            files.write_bytes(output, model.read_bytes())
    remaining = rules.lint(graph, select=select or (), ignore=ignore or ()) if mended else findings
    if json:
        print_json({"file": str(model), "findings": [one.to_json() for one in remaining], "mended": mended})
    else:
        _print(model, output, findings, mended, len(remaining))
    raise typer.Exit(1 if remaining else 0)


def _print(model: Path, output: Path | None, findings: Sequence[Finding], mended: int, remaining: int) -> None:
    from rich.console import Console

    from trtq.report.text import findings_table

    if findings:
        Console().print(findings_table(findings))
    if output is None:
        print(f"{model}: {remaining} findings" if remaining else f"{model}: clean")
    else:
        print(f"{output}: {mended} mended, {remaining} remain")
