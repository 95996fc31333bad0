"""Progress on standard error: a bar with the time left on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUARTERS = 4


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Yield a function that starts a task by its label and returns what to call with (done, total)."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def start(label: str) -> Callable[[int, int], None]:
            task = bars.add_task(label, total=None)

            def update(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total, visible=done < total)

            return update

        yield start


def phases(bars: Callable[[str], Callable[[int, int], None]]) -> Callable[[str, int, int], None]:
    """Return what a builder calls with a phase, its step and its steps: a bar each; as plain lines the outermost only.

    Phases nest, and one that begins before another has ended lies inside it.
    """
    started: dict[str, Callable[[int, int], None]] = {}

    def progress(phase: str, step: int, steps: int) -> None:
        if steps <= 0 or (started and phase not in started and bars is _lines):
            return
        if phase not in started:
            started[phase] = bars(phase)
        started[phase](step, steps)

    return progress


def say(line: str) -> None:
    """Print a line of the log on standard error."""
    print(line, file=sys.stderr, flush=True)


def _lines(label: str) -> Callable[[int, int], None]:
    said = 0

    def update(done: int, total: int) -> None:
        nonlocal said
        quarter = QUARTERS * done // total
        if quarter > said:
            said = quarter
            say(f"  {label}: {done} of {total}")

    return update
