"""Compare new records with those in benchmarks/results, claim by claim; exit code 1 where a figure got worse.

    TRTQ_RECORDS=FOLDER make bench && python -m benchmarks.check FOLDER

`make bench-check` is both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.claims import CLAIMS, Claim
from benchmarks.recording import ROOT
from trtq import files

RECORDED = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Verdict:
    """One figure, as recorded and as measured now; None where a record or a figure is missing."""

    claim: Claim
    figure: str
    recorded: float | None
    now: float | None

    @property
    def worse(self) -> bool:
        """Whether the figure is beyond its tolerance; one that has gone is worse, one that is new is not."""
        if self.recorded is None:
            return False
        if self.now is None:
            return True
        slack = abs(self.recorded) * self.claim.tolerance
        change = self.now - self.recorded
        if self.claim.better == "equal":
            return abs(change) > slack
        return (change if self.claim.better == "lower" else -change) > slack


def main() -> None:
    """Print a table of what got worse, and how many figures hold or are new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the new records")
    verdicts = check(parser.parse_args().folder, RECORDED)
    worse = [one for one in verdicts if one.worse]
    if worse:
        Console().print(_table(worse))
    print(summary(verdicts))
    sys.exit(1 if worse else 0)


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return how many figures hold, got worse, or are new and have nothing to hold against."""
    new, worse = (sum(one.recorded is None for one in verdicts), sum(one.worse for one in verdicts))
    return f"{len(verdicts) - new - worse} figures hold, {worse} got worse, {new} are new"


def check(new: Path, recorded: Path, claims: Sequence[Claim] = CLAIMS) -> tuple[Verdict, ...]:
    """Return a verdict for each figure that either folder of records holds; raises `ModelError` for a damaged one."""
    verdicts: list[Verdict] = []
    for claim in claims:
        before, now = (dict(_figures(folder, claim)) for folder in (recorded, new))
        verdicts += [Verdict(claim, name, before.get(name), now.get(name)) for name in sorted(before.keys() | now)]
    return tuple(verdicts)


def _figures(folder: Path, claim: Claim) -> Iterator[tuple[str, float]]:
    path = folder / f"{claim.record}.json"
    if path.is_file():
        yield from _matching(files.read_json(path), claim.figure.split("/"), ())


def _matching(value: Any, keys: Sequence[str], path: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    if not keys:
        if isinstance(value, int | float):
            yield "/".join(path), float(value)
        return
    if isinstance(value, dict):
        for key in value if keys[0] == "*" else [keys[0]] if keys[0] in value else []:
            yield from _matching(value[key], keys[1:], (*path, key))


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table("record", "figure", "recorded", "now", "tolerance")
    for one in verdicts:
        now = "gone" if one.now is None else f"{one.now:g}"
        table.add_row(one.claim.record, one.figure, f"{one.recorded:g}", now, f"{100 * one.claim.tolerance:g} %")
    return table


if __name__ == "__main__":
    main()
