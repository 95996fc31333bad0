"""`trtq bench`: how fast engines are, and whether one is faster."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import progress_bars, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from trtq.backends.measuring import BenchOptions
    from trtq.bench import BenchResult, BenchRun, Pair
    from trtq.bench.engines import Candidate
    from trtq.bench.store import Step
    from trtq.config import Recipe
    from trtq.layers.graph import LayerGraph

RAW = ("times_us", "parts_us", "machine")
PERCENTS = {"p50_us": 50, "p90_us": 90, "p95_us": 95, "p99_us": 99}
FIGURES = {"throughput_qps": "runs/s", **{name: f"p{percent} µs" for name, percent in PERCENTS.items()}}
PARTS = {"enqueue": "enqueue µs", "to_device": "copy in µs", "to_host": "copy out µs"}
# What fits beside each other in 80 characters.
COLUMNS = 4
INTERVAL = "times as fast\n95 % interval"


def bench(
    engines: Annotated[
        list[Path],
        typer.Argument(
            help="Plans, ONNX files, a recipe (TOML) for its modes; or logs and times of trtexec, and stored runs.",
            metavar="ENGINE...",
            show_default=False,
        ),
    ],
    mode: Annotated[str | None, typer.Option(help="For a recipe: its modes. [default: all that are built]")] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="trt, rtx, trtexec, ort or ort-native. [default: what built it]", show_default=False),
    ] = None,
    warm_up: Annotated[float, typer.Option("--warm-up", "--warmUp", help="Of each engine.", metavar="MS")] = 500.0,
    duration: Annotated[float, typer.Option(help="Of each engine, at least.", metavar="S")] = 10.0,
    iterations: Annotated[int, typer.Option(help="Runs of each engine, at least.", metavar="N")] = 10,
    batch: Annotated[int | None, typer.Option(help="Of engines whose batch is dynamic.", metavar="N")] = None,
    streams: Annotated[int, typer.Option("--streams", "--infStreams", help="Runs that overlap on the GPU.")] = 1,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", "--useCudaGraph/--noCudaGraph", help="One launch a run.")
    ] = True,
    spin_wait: Annotated[
        bool, typer.Option("--spin-wait/--no-spin-wait", "--useSpinWait/--noSpinWait", help="Wait busily for the GPU.")
    ] = True,
    data_transfers: Annotated[
        bool,
        typer.Option(
            "--data-transfers/--no-data-transfers",
            "--includeDataTransfers/--noDataTransfers",
            help="Copy inputs and outputs in every run.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(help="Of the processor, for ONNX Runtime.", metavar="N")] = 1,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Processor time, which other work lengthens less; of one thread.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Real input: a folder of pictures, an .npy file or a recipe. [default: random]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random input and of the turns' order.", metavar="N")] = 0,
    margin: Annotated[
        float | None,
        typer.Option(
            help="The smallest difference that counts. [default: 2; 5 where not measured in turn]", metavar="PERCENT"
        ),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write each engine's layers with their times there.", metavar="FOLDER")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run as JSON. [default: a recipe's, in its folder]")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="List a recipe's stored runs; exit code 1 where the last is slower.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the same measurement as trtexec commands, and measure nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Time engines in turn and compare every two of them: faster, slower, or no difference shown."""
    from trtq.backends.measuring import BenchOptions
    from trtq.errors import ConfigError

    if margin is not None and not 0 <= margin < 100:
        raise ConfigError(f"--margin is {margin:g}; it is a percentage from 0 to 100")
    share = None if margin is None else margin / 100
    wishes = _Wishes(mode, backend, images, share, profile, output, json)
    if history:
        if dry_run:
            raise ConfigError("--dry-run does not go with --history, which measures nothing; leave it out")
        _refuse("does not go with --history, which measures nothing", wishes, "mode", "backend", "images", "profile",
                "output")  # fmt: skip
        _history(engines, share, json)
        return
    options = BenchOptions(
        warm_up, duration, iterations, batch, streams, cuda_graph, spin_wait, data_transfers, threads, seed,
        clock="cpu" if cpu_time else "wall",
    )  # fmt: skip
    if dry_run:
        _refuse("does not go with --dry-run, which prints trtexec's commands", wishes, "mode", "backend", "images",
                "profile", "output")  # fmt: skip
        _dry_run(engines, options, json)
        return
    _bench(engines, options, wishes)


@dataclass(frozen=True)
class _Wishes:
    """What is wanted besides the options of the measurement; margin: a share, None for the defaults."""

    mode: str | None
    backend: str | None
    images: Path | None
    margin: float | None
    profile: Path | None
    output: Path | None
    json: bool


def _refuse(why: str, wishes: _Wishes, *names: str) -> None:
    from trtq.errors import ConfigError

    for name in names:
        if getattr(wishes, name) is not None:
            raise ConfigError(f"--{name} {why}; leave it out")


def _bench(paths: Sequence[Path], options: BenchOptions, wishes: _Wishes) -> None:
    from trtq.bench import BenchRun, store
    from trtq.bench.session import measured, named_apart, run

    recipe = _recipe(paths)
    found = [(path, None if recipe else measured(path)) for path in paths]
    candidates = _candidates(recipe, [path for path, results in found if results is None], wishes)
    candidates, read = named_apart(candidates, [(one, path) for path, results in found for one in results or ()])
    if not candidates:
        _refuse("is of engines, and only results are named here", wishes, "backend", "images", "profile")
    target = wishes.output or (store.folder_of(recipe) / f"{store.now()}.json" if recipe else None)
    profiles = {} if wishes.profile is None else {one.name: _layer_file(wishes.profile, one) for one in candidates}
    for path in (*([target] if target else ()), *profiles.values()):
        store.check_new(path)
    timed = BenchRun(store.now(), ())
    layers: dict[str, LayerGraph] = {}
    if candidates:
        with progress_bars() as bars:
            timed, layers = run(
                candidates, options, recipe=recipe.name if recipe else None, images=wishes.images,
                profile=wishes.profile is not None, command=" ".join(["trtq", *sys.argv[1:]]), progress=bars("bench"),
            )  # fmt: skip
    whole = replace(timed, results=(*timed.results, *read))
    if target is not None:
        store.save(whole, target, wishes.margin)
    for name, graph in layers.items():
        graph.save(profiles[name])
    _show(whole, wishes.margin, target, json=wishes.json)


def _layer_file(folder: Path, one: Candidate) -> Path:
    return folder / f"{one.name.replace('/', '-')}.layers.json"


def _recipe(paths: Sequence[Path]) -> Recipe | None:
    from trtq.config import load_recipe
    from trtq.errors import ConfigError

    recipes = [path for path in paths if path.suffix == ".toml"]
    if recipes and len(paths) > 1:
        raise ConfigError("a recipe is benchmarked alone; name engines one by one to mix them")
    return load_recipe(recipes[0]) if recipes else None


def _candidates(recipe: Recipe | None, paths: Sequence[Path], wishes: _Wishes) -> list[Candidate]:
    from trtq.bench.engines import built_modes, candidate, of_recipe
    from trtq.errors import ConfigError
    from trtq.pipeline.build import parse_modes

    if recipe is None:
        if wishes.mode is not None:
            raise ConfigError("--mode is for a recipe; an engine is of one mode")
        return [candidate(path, wishes.backend) for path in paths]
    modes = built_modes(recipe, wishes.backend) if wishes.mode is None else parse_modes(wishes.mode)
    return of_recipe(recipe, modes, wishes.backend)


def _show(run: BenchRun, margin: float | None, target: Path | None, *, json: bool) -> None:
    for note, names in _notes(run).items():
        say(f"note: {names}{note}")
    if json:
        document = run.to_json(margin)
        document["results"] = [{key: one[key] for key in one if key not in RAW} for one in document["results"]]
        print_json({**document, "file": None if target is None else str(target)})
        return
    from trtq.bench.store import pairs

    console = _console()
    for start in range(0, len(run.results), COLUMNS):
        console.print(_results_table(run.results[start : start + COLUMNS]))
    if len(run.results) > 1:
        console.print(_pairs_table(pairs(run.results, margin)))
    if target is not None:
        print(f"raw times: {target}")


def _notes(run: BenchRun) -> dict[str, str]:
    """Return every note with the names of those that it is about, none where it is about all."""
    about: dict[str, list[str]] = {}
    for one in run.results:
        for note in one.notes:
            about.setdefault(note, []).append(one.name)
    found = {note: "" if len(names) == len(run.results) else ", ".join(names) + ": " for note, names in about.items()}
    if run.unreadable:
        found[f"not readable on this machine: {', '.join(run.unreadable)}"] = ""
    return found


def _results_table(results: Sequence[BenchResult]) -> Table:
    """Return a column an engine, a row a figure, with its interval below."""
    table = _table("", *(one.name for one in results))
    table.add_row("runs by", *(one.backend for one in results))
    table.add_row("library", *(one.dialect for one in results))
    table.add_row("batch", *(str(one.batch) for one in results))
    bounds = [one.intervals() for one in results]
    for name, title in FIGURES.items():
        figures = (_figure(one, name) for one in results)
        table.add_row(title, *(_cell(value, ends.get(name)) for value, ends in zip(figures, bounds, strict=True)))
    for name, title in PARTS.items():
        values = [one.part_us(name) for one in results]
        if any(value > 0 for value in values):
            table.add_row(title, *map(_number, values))
    return table


def _figure(one: BenchResult, name: str) -> float:
    return one.percentile_us(PERCENTS[name]) if name in PERCENTS else one.throughput_qps


def _pairs_table(found: Sequence[Pair]) -> Table:
    table = _table("against", "engine", "verdict", INTERVAL)
    for one in found:
        table.add_row(one.baseline, one.candidate, *_words(one))
    return table


def _words(one: Pair) -> tuple[str, str]:
    """Return a pair's verdict in words, and the interval as times as fast."""
    speed = one.speed
    if speed is None:
        first, *others = one.reasons
        more = f"; and {len(others)} more reason{'s' * (len(others) > 1)} (--json)" if others else ""
        return one.words, first + more
    interval = f"{1 / speed.high:.3f} to {1 / speed.low:.3f}"
    if not speed.paired:
        interval += "; measured apart"
    if speed.verdict.value.startswith("no"):
        return f"{one.words} (of {100 * speed.margin:g} %)", interval
    factor = 1 / speed.ratio if speed.ratio < 1 else speed.ratio
    by = f"{100 * (factor - 1):.1f} %" if factor < 2 else f"a factor of {factor:.1f}"
    return f"{one.words} by {by}", interval


def _history(paths: Sequence[Path], margin: float | None, json: bool) -> None:
    from trtq.bench.store import history, regressions
    from trtq.errors import ConfigError

    recipe = _recipe(paths)
    if recipe is None:
        raise ConfigError("--history is of a recipe; name its .toml file")
    steps = history(recipe, margin)
    worse = regressions(steps)
    if json:
        print_json({"recipe": recipe.name, "runs": [_step_json(one) for one in steps], "regressions": len(worse)})
    else:
        _console().print(_history_table(steps))
    for one in worse:
        say(f"regression: {one.result.name} ({one.result.backend}) of {one.when} is slower than the run before")
    raise typer.Exit(1 if worse else 0)


def _history_table(steps: Sequence[Step]) -> Table:
    table = _table("when (UTC)", "engine", "runs by", "p50 µs", "against the one before", INTERVAL)
    for one in steps:
        verdict, interval = ("–", "") if one.pair is None else _words(one.pair)
        table.add_row(
            _minute(one.when), one.result.name, one.result.backend, _number(one.result.median_us), verdict, interval
        )
    return table


def _minute(stamp: str) -> str:
    """Return 20260131T235900Z as 2026-01-31 23:59."""
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]} {stamp[9:11]}:{stamp[11:13]}"


def _step_json(one: Step) -> dict[str, Any]:
    figures = {"p50_us": one.result.median_us, "throughput_qps": one.result.throughput_qps}
    told = {"when": one.when, "name": one.result.name, "backend": one.result.backend, "regressed": one.regressed}
    return {**told, **figures, "pair": None if one.pair is None else one.pair.to_json()}


def _dry_run(paths: Sequence[Path], options: BenchOptions, json: bool) -> None:
    from trtq.backends.command import bench_command, text
    from trtq.backends.dialects import DIALECTS
    from trtq.errors import ConfigError

    if options.batch is not None:
        raise ConfigError("--batch needs an engine's inputs, which --dry-run does not read; add --shapes by hand")
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        if path.suffix.lower() in (".toml", ".onnx"):
            raise ConfigError(f"{path}: is no engine, and trtexec times engines; name a plan")
        for dialect in DIALECTS.values():
            try:
                command = text(bench_command(dialect, path, options=options))
            except ConfigError as error:
                command = f"# {error}"
            found.setdefault(str(path), {})[dialect.product] = command
    if json:
        print_json(found)
        return
    for commands in found.values():
        for product, command in commands.items():
            print(f"{product}:\n  {command}")


def _console() -> Console:
    """Return a console that prints names as they are: a file may be called `[bold].onnx`."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _cell(value: float, bounds: Any) -> str:
    if bounds is None:
        return _number(value)
    ends = "–".join("?" if end is None else _number(end) for end in (bounds.low, bounds.high))
    return f"{_number(value)}\n{ends}"


def _number(value: float) -> str:
    """Return four digits of a figure, a dash for what is not known."""
    if not _real(value):
        return "–"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"


def _real(value: float) -> bool:
    return math.isfinite(value)
