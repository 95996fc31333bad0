"""JSON as trtexec writes it: layer names unescaped, numbers as C++ prints them.

trtexec puts a layer's name between quotes as it is, so a quote, a backslash or U+001E inside makes invalid JSON; times
may be `nan` or `inf`. Only text that is not JSON is mended, only where trtexec writes names, and then has to be JSON:
a file that is damaged in another way stays an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

# The quote that ends a name is the one before the key that TensorRT and trtexec write next.
_AFTER_NAME = {
    "Name": re.compile(r'"(?=\s{0,64},\s{0,64}"(?:LayerType|Location|Dimensions|IOMode)"\s{0,64}:)'),
    "name": re.compile(r'"(?=\s{0,64},\s{0,64}"(?:timeMs|averageMs)"\s{0,64}:)'),
    "Metadata": re.compile(r'"(?=\s{0,64}(?:\}|,\s{0,64}"[A-Z][A-Za-z]{1,40}"\s{0,64}:))'),
}
# Without detailed verbosity layers are a list of names.
_AFTER_LISTED_NAME = re.compile(r'"(?=\s{0,64}(?:\]|,\s{0,64}"))')
_DETAILED = '"LayerType"'
_NEXT_ROW = re.compile(r'\{\s{0,64}"[Nn]ame"\s{0,64}:')
_TEXT = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)
_TOKEN = re.compile(r'["{}\[\],:]|-?nan\([^)"]{0,32}\)|-?(?:nan|inf(?:inity)?)\b', re.IGNORECASE)
_NUMBERS = {"n": "NaN", "i": "Infinity"}
_BAD_ESCAPE = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONE_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)"')


def parse(text: str) -> Any:
    """Return the JSON value in `text`, mended where trtexec's writing needs it; NaN and infinities are floats.

    Raises `ValueError` where it is not JSON even so (the error is that of the text as it stands), and `RecursionError`
    where it is nested too deep.
    """
    try:
        return json.loads(text, strict=False)
    except ValueError as error:
        try:
            return json.loads(mend(text), strict=False)
        except ValueError:
            raise error from None


def mend(text: str) -> str:
    """Return the text with quotes and backslashes inside names escaped, and C++'s nan and inf as Python reads them.

    A name that itself holds what follows names (`", "timeMs" :`) is cut there. Raises `ValueError` where a text is
    never closed, or a name would reach into the next row.
    """
    names_only = _DETAILED not in text
    pieces: list[str] = []
    nesting: list[str] = []
    position, inside, key, is_key = 0, "", "", False
    while (token := _TOKEN.search(text, position)) is not None:
        mark = token.group()
        pieces.append(text[position : token.start()])
        position = token.end()
        if mark == '"':
            content = _content(text, position, _ending(inside, "" if is_key else key, names_only))
            position += len(content) + 1
            pieces.append(f'"{_escaped(content)}"')
            key = content if is_key else key
            continue
        if mark in "{[":
            nesting.append(mark)
        elif mark in "}]" and nesting:
            nesting.pop()
        inside = nesting[-1] if nesting else ""
        is_key = inside == "{" and mark in "{,"
        pieces.append(mark if len(mark) == 1 else _number(mark))
    return "".join([*pieces, text[position:]])


def _ending(inside: str, key: str, names_only: bool) -> re.Pattern[str] | None:
    """Return what ends a name, or None where JSON's own rule ends a text."""
    if inside == "{":
        return _AFTER_NAME.get(key)
    return _AFTER_LISTED_NAME if names_only and inside == "[" else None


def _content(text: str, start: int, ending: re.Pattern[str] | None) -> str:
    found = _TEXT.match(text, start) if ending is None else ending.search(text, start)
    if found is None:
        raise ValueError("a text is never closed")
    content = text[start : found.end() - 1]
    if ending is not None and _NEXT_ROW.search(content):
        raise ValueError("a name reaches into the next row")
    return content


def _escaped(content: str) -> str:
    if '"' not in content and "\\" not in content:
        return content
    return _LONE_QUOTE.sub(r"\1\\" + '"', _BAD_ESCAPE.sub(r"\\\\", content))


def _number(word: str) -> str:
    sign = "-" if word.startswith("-") else ""
    number = _NUMBERS[word.lstrip("-")[0].lower()]
    return number if number == "NaN" else sign + number
