"""`trtq rule`: the manual page of a lint rule."""

from __future__ import annotations

from typing import Annotated

import typer

from trtq.cli.options import JsonOption, print_json


def rule(
    code: Annotated[
        str | None, typer.Argument(help="The rule, as in TQ101; none lists all.", show_default=False)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print every page, as docs/rules.md has them.")] = False,
    json: JsonOption = False,
) -> None:
    """Explain a lint rule: what it finds, why that matters, how it is mended and how safe that is."""
    from trtq import rules

    if markdown:
        print(rules.catalogue(), end="")
    elif code is not None:
        found = rules.rule(code)
        if json:
            print_json({"code": found.code, "name": found.name, "safety": found.safety, "targets": list(found.targets)})
        else:
            print(rules.page(found), end="")
    elif json:
        print_json([{"code": one.code, "name": one.name, "safety": one.safety} for one in rules.RULES])
    else:
        for one in rules.RULES:
            print(f"{one.code}  {one.name:<28} {one.safety if one.fix else 'no fix'}")
