"""Benchmarks of a recipe's engines, found beside what it has built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtq.bench import BenchResult, store
from trtq.config import Recipe


def benches(recipe: Recipe, modes: Sequence[str]) -> dict[str, list[BenchResult]]:
    """Return what `trtq bench` last measured of each mode, one result a back end, machine and batch.

    Results of other names are left out.
    Raises `ModelError` for a damaged file.
    """
    newest: dict[tuple[Any, ...], BenchResult] = {}
    for run in store.stored_runs(recipe):
        for one in run.results:
            newest[one.name, one.backend, _machine(one), one.batch] = one
    found: dict[str, list[BenchResult]] = {}
    for (name, *_), one in newest.items():
        found.setdefault(name, []).append(one)
    return {mode: found[mode] for mode in modes if mode in found}


def _machine(result: BenchResult) -> tuple[str, str]:
    gpus = result.machine.get("gpus") or [{}]
    return str(result.machine.get("cpu")), str(gpus[0].get("name"))
