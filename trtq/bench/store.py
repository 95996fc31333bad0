"""Benchmark runs as files: all results of one measurement, and the history of a recipe's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from typing import Any

from trtq import __version__, files
from trtq.bench.compare import Speed, Verdict, compare, differences
from trtq.bench.result import NOTHING, BenchResult, from_json
from trtq.config import Recipe
from trtq.errors import ModelError, OutputError

FORMAT = "trtq_bench_run"
FOLDER = "bench"
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class BenchRun:
    """Results that were measured in turn, or read from files together; readings: of the clocks, in order of time.

    when: UTC, as 20260131T235900Z. unreadable: what this machine does not tell of its clocks.
    """

    when: str
    results: tuple[BenchResult, ...]
    recipe: str | None = None
    readings: tuple[Mapping[str, Any], ...] = ()
    unreadable: tuple[str, ...] = ()
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def to_json(self, margin: float | None = None) -> dict[str, Any]:
        """Return the JSON form, with the comparison of every pair."""
        return {
            FORMAT: 1,
            "trtq": __version__,
            "when": self.when,
            "recipe": self.recipe,
            "command": self.command,
            "options": dict(self.options),
            "results": [one.to_json() for one in self.results],
            "pairs": [one.to_json() for one in pairs(self.results, margin)],
            "readings": [dict(one) for one in self.readings],
            "unreadable": list(self.unreadable),
        }


@dataclass(frozen=True)
class Pair:
    """Two results: their speeds, or why they are not comparable."""

    baseline: str
    candidate: str
    speed: Speed | None
    reasons: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The verdict."""
        return self.speed.verdict.value if self.speed is not None else "not comparable"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        told = {"baseline": self.baseline, "candidate": self.candidate, "verdict": self.words}
        return {**told, **(self.speed.to_json() if self.speed else {"reasons": list(self.reasons)})}


@dataclass(frozen=True)
class Step:
    """A stored result beside the one before it that compares; `pair` is None for the first."""

    when: str
    result: BenchResult
    pair: Pair | None

    @property
    def regressed(self) -> bool:
        """Whether it is slower than the one before."""
        return self.pair is not None and self.pair.speed is not None and self.pair.speed.verdict is Verdict.SLOWER


def pairs(results: Sequence[BenchResult], margin: float | None = None) -> tuple[Pair, ...]:
    """Compare every two results, the earlier one as baseline."""
    return tuple(pair(a, b, margin) for a, b in combinations(results, 2))


def pair(a: BenchResult, b: BenchResult, margin: float | None) -> Pair:
    """Compare two results, or say why they do not compare."""
    reasons = differences(a, b)
    return Pair(a.name, b.name, None if reasons else compare(a, b, margin=margin), reasons)


def now() -> str:
    """Return the present as runs are stamped."""
    return datetime.now(timezone.utc).strftime(STAMP)


def folder_of(recipe: Recipe) -> Path:
    """Return where a recipe's runs are kept."""
    return recipe.folder / FOLDER


def check_new(path: Path) -> None:
    """Raise `OutputError` where a file is there already, or cannot be written."""
    if path.exists():
        raise OutputError(f"{path}: exists; a benchmark overwrites nothing, so name another one")
    files.check_writable(path)


def save(run: BenchRun, path: Path, margin: float | None = None) -> None:
    """Write a run to a file that is not there yet, compactly; raises `OutputError`."""
    check_new(path)
    files.write_text(path, json.dumps(run.to_json(margin), sort_keys=True, allow_nan=False) + "\n")


def load(path: Path) -> BenchRun:
    """Read a run that `save` wrote; raises `ModelError` for any other file."""
    return of_document(files.read_json(path), path)


def of_document(document: Any, path: Path) -> BenchRun:
    """Return the run in a JSON value that `path` holds; raises `ModelError` where it is none, or not whole."""
    if not is_run(document):
        raise ModelError(f"{path}: is no benchmark of trtq; measure with `trtq bench`")
    try:
        return BenchRun(
            when=str(document["when"]),
            results=tuple(map(from_json, document["results"])),
            recipe=document["recipe"],
            readings=tuple(document["readings"]),
            unreadable=tuple(document["unreadable"]),
            command=str(document["command"]),
            options=dict(document["options"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is not a whole benchmark of trtq ({error!r}); measure again") from error


def is_run(document: Any) -> bool:
    """Tell whether a JSON value is a run that `save` wrote."""
    return isinstance(document, dict) and document.get(FORMAT) == 1


def stored_runs(recipe: Recipe) -> tuple[BenchRun, ...]:
    """Return a recipe's stored runs in order of time; raises `ModelError` for a file that is damaged or no JSON."""
    documents = ((files.read_json(path), path) for path in sorted(folder_of(recipe).glob("*.json")))
    runs = (of_document(document, path) for document, path in documents if is_run(document))
    return tuple(sorted(runs, key=lambda run: run.when))


def history(recipe: Recipe, margin: float | None = None) -> tuple[Step, ...]:
    """Return a recipe's stored results in order of time, each beside the last one before it that compares.

    Raises `ModelError` where nothing is stored, or a file is damaged.
    """
    runs = stored_runs(recipe)
    if not runs:
        raise ModelError(f"{folder_of(recipe)}: holds no benchmark yet; run `trtq bench {recipe.path.name}` first")
    return tuple(_steps(runs, margin))


def regressions(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the results that are the last of their name and back end, and slower than the one before."""
    last = {(one.result.name, one.result.backend): one for one in steps}
    return tuple(one for one in last.values() if one.regressed)


def _steps(runs: Sequence[BenchRun], margin: float | None) -> Iterator[Step]:
    seen: dict[tuple[str, str], list[BenchResult]] = {}
    for run in runs:
        for one in run.results:
            earlier = seen.setdefault((one.name, one.backend), [])
            yield Step(run.when, one, _before(earlier, one, margin))
            earlier.append(one)


def _before(earlier: Sequence[BenchResult], one: BenchResult, margin: float | None) -> Pair | None:
    """Return the comparison with the last result that compares, else why the last one does not."""
    comparable = next((old for old in reversed(earlier) if not differences(old, one)), None)
    if comparable is not None:
        return pair(comparable, one, margin)
    return pair(earlier[-1], one, margin) if earlier else None
