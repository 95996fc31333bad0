"""`trtq doctor`: what this machine has and can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from trtq.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from trtq.backends.doctor import Ability, Diagnosis
    from trtq.machine import Machine


def doctor(
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Exit with code 3 unless this back end (trt) or part (gpu, dot) works; may be repeated.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what this machine has, which builds and runs work here, and what to install for those that do not."""
    from trtq.backends.doctor import diagnose

    found = diagnose()
    if json:
        print_json(found.to_json())
    elif not require:
        _print(found)
    found.require(require or ())


def _print(found: Diagnosis) -> None:
    from rich.console import Console

    console = Console()
    for table in (_parts(found), _work(found), _backends(found)):
        console.print(table)
    missing = dict.fromkeys(name for one in found.abilities for name in one.missing)
    for part in (found.parts[name] for name in missing):
        console.print(f"{part.name} {part.problem}:\n  {part.install}", markup=False, highlight=False, soft_wrap=True)


def _parts(found: Diagnosis) -> Table:
    table = _table("this machine", "")
    for name, value in _facts(found.machine):
        table.add_row(name, value)
    for name, part in found.parts.items():
        if name == "calibrators" and not found.parts["tensorrt"].works:
            continue
        table.add_row(part.name, part.found or "–")
    return table


def _facts(here: Machine) -> Iterable[tuple[str, str]]:
    from trtq import __version__

    yield "trtq", __version__
    yield "Python", here.python
    yield "platform", here.platform
    yield "processor", f"{here.cpu}, {here.cores} cores, {here.memory_mib / 1024:.1f} GiB"
    if here.jetson is not None:
        board = here.jetson
        yield "Jetson", board.model
        yield "L4T, JetPack", f"{board.l4t or 'unknown'}, {board.jetpack or 'unknown'}"
        yield "power mode", board.power_mode or "unknown"
    yield "driver", here.driver or "–"
    yield "CUDA", here.cuda or "–"
    for flavour, version in here.tensorrt:
        if flavour not in ("tensorrt", "tensorrt-rtx"):
            yield flavour, version


def _work(found: Diagnosis) -> Table:
    table = _table("work", "")
    for one in found.abilities:
        if not one.backend:
            table.add_row(one.does, _verdict(found, one))
    return table


def _backends(found: Diagnosis) -> Table:
    from trtq.backends.doctor import MODES

    table = _table("back end", *(mode.replace(" ", "\n") for mode in MODES), "lacks")
    rows: dict[str, dict[str, Ability]] = {}
    for one in found.abilities:
        if one.backend:
            rows.setdefault(one.backend, {})[one.does] = one
    for backend, does in rows.items():
        cells = ["–" if mode not in does else "yes" if does[mode].works else "no" for mode in MODES]
        lacking = dict.fromkeys(found.parts[part].name for one in does.values() for part in one.missing)
        table.add_row(backend, *cells, ", ".join(lacking))
    return table


def _verdict(found: Diagnosis, ability: Ability) -> str:
    return "works" if ability.works else "needs " + ", ".join(found.parts[part].name for part in ability.missing)


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading)
    return table
