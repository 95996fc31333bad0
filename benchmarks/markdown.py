"""Tables in Markdown: the only form in which records reach the README and the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RULERS = {"l": "---", "r": "---:"}


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], aligned: str = "") -> str:
    """Return a table. aligned: a letter for each column, `l` or `r`; else text at the left, then figures."""
    rulers = [RULERS[one] for one in aligned or "l" + "r" * (len(heads) - 1)]
    return "\n".join([_line(heads), f"|{'|'.join(rulers)}|", *map(_line, rows)])


def _line(cells: Sequence[object]) -> str:
    return "|" + "".join(f" {cell} |" if cell != "" else " |" for cell in cells)
