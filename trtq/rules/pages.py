"""The rules' manual pages, as `trtq rule` and docs/rules.md have them."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import dedent

from trtq.rules.finding import Rule

INTRODUCTION = """\
# Rules

Written by `trtq rule --markdown` from the rules' own pages. *Safety* is what the rule's fix does to the numbers.

"""


def page(rule: Rule) -> str:
    """Return one rule's page as Markdown: its docstring, what it holds for, and its examples as ONNX text."""
    title, _, body = rule.page.strip().partition("\n")
    safety = rule.safety if rule.fix is not None else "no fix"
    facts = f"*Holds for* {', '.join(rule.targets)}. *Safety*: {safety}."
    return f"# {title}\n\n{facts}\n{body}\n\n## Bad\n\n{_code(rule.bad)}\n## Good\n\n{_code(rule.good)}"


def catalogue(rules: Iterable[Rule]) -> str:
    """Return every page as one Markdown document with a table in front."""
    rules = tuple(rules)
    rows = "".join(f"| [{one.code}](#{anchor(one)}) | {one.name} | {_safety(one)} |\n" for one in rules)
    pages = "\n".join(_below(page(one)) for one in rules)
    return f"{INTRODUCTION}| rule | name | safety of its fix |\n|---|---|---|\n{rows}\n{pages}"


def anchor(rule: Rule) -> str:
    """Return the anchor that Markdown gives to the rule's heading."""
    title = rule.page.strip().partition("\n")[0].lower()
    return "".join(one for one in title if one.isalnum() or one in " -_").replace(" ", "-")


def _safety(rule: Rule) -> str:
    return rule.safety if rule.fix is not None else "no fix"


def _below(text: str) -> str:
    """Return a page with its headings one level deeper."""
    return "".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines(keepends=True))


def _code(text: str) -> str:
    return f"```\n{dedent(text).strip()}\n```\n"
