"""Write the pages that say what the code says: the recipe's keys, the commands and their options, the rules.

python -m scripts.reference
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from trtq import config, files, rules
from trtq.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TYPES = {str: "text", int: "integer", float: "number", bool: "`true` or `false`"}
RECIPE_INTRODUCTION = """\
# Recipe reference

Written by `python -m scripts.reference` from `trtq/config.py`; how to use a recipe is on [another page](../recipes.md).
An unknown key, a wrong type or a value out of range is refused with one sentence ([exit code 2](../errors.md)).
"""
COMMAND_INTRODUCTION = """\
# Commands

Written by `python -m scripts.reference` from the command line itself: what `trtq COMMAND --help` prints. Results go to
standard output, progress and notes to standard error; the exit codes are on [their own page](../errors.md).
"""


def recipe_page() -> str:
    """Return docs/reference/recipe.md: every table of a recipe with its keys, types, defaults and meanings."""
    hints = typing.get_type_hints(config.Recipe)
    tables = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parts = [RECIPE_INTRODUCTION, _table("Top level", config.Recipe, "Above the first table of the file.", hints)]
    parts += [_table(f"[{name}]", kind, inspect.getdoc(kind) or "") for name, kind in tables.items()]
    return "\n".join(parts)


def _table(title: str, kind: Any, about: str, hints: Mapping[str, Any] | None = None) -> str:
    hints = hints or typing.get_type_hints(kind)
    meanings = field_texts(kind)
    rows = [
        f"| `{one.name}` | {_type(hints[one.name])} | {_default(one)} | {_from_reference(meanings[one.name])} |"
        for one in dataclasses.fields(kind)
        if one.name in meanings
    ]
    return "\n".join([f"## {title}\n\n{about}\n", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def field_texts(kind: Any) -> dict[str, str]:
    """Return the text below each field of a dataclass, in one line each; fields without one are left out."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        above.target.id: " ".join(inspect.cleandoc(below.value.value).split())
        for above, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(above, ast.AnnAssign)
        and isinstance(above.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _type(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _type(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(one)}`" for one in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}s"
    return "table" if origin is not None else TYPES[hint]


def _default(one: dataclasses.Field[Any]) -> str:
    if one.default_factory is not dataclasses.MISSING:
        return f"`{json.dumps(one.default_factory())}`"
    if one.default is dataclasses.MISSING:
        return "required"
    return "none" if one.default is None else f"`{json.dumps(one.default)}`"


def _from_reference(text: str) -> str:
    """Return Markdown whose links are relative to docs/ as docs/reference/ has to write it."""
    return re.sub(r"\]\((?!https?:|#)", "](../", text)


def command_page() -> str:
    """Return docs/reference/commands.md: every command with its usage, arguments and options."""
    return "\n".join([COMMAND_INTRODUCTION, *_commands(typer.main.get_command(app), "trtq")])


def _commands(command: Any, path: str, parent: Any = None) -> Iterator[str]:
    """Yield the section of a command and those of its commands; a group of commands has only theirs and its own."""
    context = command.make_context(path.rsplit(maxsplit=1)[-1], [], parent=parent, resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    about = inspect.cleandoc(command.help or command.short_help or "")
    lines = [f"- `{name}`: {text}" for name, text in _parameters(command, context)]
    yield "\n".join([f"## {path}\n\n{about}\n", f"```\n{path} {usage}\n```\n", *lines, ""])
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{path} {name}", context)


def _parameters(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    for one in command.get_params(context):
        record = one.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            yield record[0], record[1].replace("<", "&lt;")


PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "reference" / "recipe.md": recipe_page,
    DOCS / "reference" / "commands.md": command_page,
    DOCS / "rules.md": rules.catalogue,
}


def main() -> None:
    """Write every page again."""
    for path, write in PAGES.items():
        files.write_text(path, write())
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
