"""Dockerfiles as data: instructions, the stages between them, and what variables stand for in one image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

VARIABLE = re.compile(r"\$\{(\w+)(?::([-+])((?:[^{}]|\{[^{}]*\})*))?\}|\$(\w+)")


class Instruction(NamedTuple):
    """One instruction, its continuation lines joined."""

    word: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """A FROM with what follows it; `base` is an image, or another stage's name."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]


def instructions(text: str) -> list[Instruction]:
    """Return a Dockerfile's instructions in order, comments left out."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^[ \t]*#.*\n", "", text))
    words = (line.strip().split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(word.upper(), rest[0] if rest else "") for word, *rest in words]


def stages(text: str, arguments: Mapping[str, str] = {}) -> list[Stage]:
    """Return a Dockerfile's stages in order, with variables in FROM lines replaced: by `arguments`, else defaults."""
    found: list[Stage] = []
    known: dict[str, str] = {}
    for one in instructions(text):
        if one.word == "FROM":
            base, _, name = replaced(one.rest, known).partition(" AS ")
            found.append(Stage(base, name, ()))
        elif found:
            last = found[-1]
            found[-1] = Stage(last.base, last.name, (*last.instructions, one))
        elif one.word == "ARG":
            known |= argument(one.rest, arguments)
    return found


def chain(text: str, arguments: Mapping[str, str] = {}) -> tuple[str, list[Instruction]]:
    """Return the image that a Dockerfile's last stage starts from, and every instruction from there on."""
    found = stages(text, arguments)
    by_name = {one.name: one for one in found if one.name}
    stage, steps = found[-1], list(found[-1].instructions)
    while stage.base in by_name:
        stage = by_name[stage.base]
        steps = [*stage.instructions, *steps]
    return stage.base, steps


def argument(rest: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what an ARG defines: the value given, else its default; nothing where there is neither."""
    name, _, default = rest.partition("=")
    return {name: given[name]} if name in given else {name: _unquoted(default)} if "=" in rest else {}


def environment(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return what an ENV defines, as `NAME=VALUE` pairs, variables in the values replaced."""
    return {name: replaced(_unquoted(value), known) for name, value in _pairs(rest)}


def replaced(text: str, known: Mapping[str, str]) -> str:
    """Return the text with `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+text}` replaced as Docker does."""

    def value(found: re.Match[str]) -> str:
        current = known.get(found[1] or found[4], "")
        if found[2] == "+":
            return replaced(found[3], known) if current else ""
        return current or (replaced(found[3], known) if found[2] == "-" else "")

    return VARIABLE.sub(value, text)


def _pairs(rest: str) -> Iterator[Sequence[str]]:
    for found in re.finditer(r'(\w+)=("[^"]*"|\S*)', rest):
        yield found.groups()


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
