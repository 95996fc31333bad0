"""Engines timed by trtexec, one turn a process. Not run on a GPU yet."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from trtq.backends import child, command, trtexec
from trtq.backends.launch import Times
from trtq.backends.measuring import BenchOptions
from trtq.errors import ConfigError, ModelError
from trtq.layers import trtexec_times
from trtq.layers.trtexec_log import parse_log
from trtq.layers.trtexec_times import TrtexecTimes

# Loading an engine and warming it up costs about as much as a shorter turn.
SHORTEST_SLICE_S = 2.0
# What a turn may take besides its duration: loading the engine, above all.
GRACE_S = 600.0
US_PER_MS, US_PER_S = 1000.0, 1e6
INPUT = "random, trtexec's own"


class TrtexecTimer:
    """An engine that trtexec loads, warms up and times anew in every turn.

    Raises `MissingBackendError` where trtexec is not here, `ConfigError` for what it cannot be told.
    """

    def __init__(self, engine: Path, options: BenchOptions) -> None:
        self.version = trtexec.version()
        if options.batch is not None:
            raise ConfigError("--batch needs an engine's inputs, which trtexec does not tell; use --backend trt")
        self._engine = engine
        self._options = options
        self._dialect = trtexec.dialect()

    def time(self, *, iterations: int, duration_s: float = 0.0) -> Times:
        """Run at least so often and at least so long; raises `ModelError` with trtexec's own words."""
        options = replace(self._options, iterations=iterations, duration_s=max(1.0, duration_s))
        with tempfile.TemporaryDirectory() as folder:
            # Its exports land beside the engine's name: a link keeps them out of the engine's folder.
            link = Path(folder) / self._engine.name
            link.symlink_to(self._engine.resolve())
            words = command.bench_command(self._dialect, link, options=options, layers=False)
            begin = time.perf_counter()
            told = _run((trtexec.program(), *words[1:]), options.duration_s + GRACE_S, self._engine)
            wall_s = time.perf_counter() - begin
            exported = link.with_name(f"{link.name}.times.json")
            if not exported.is_file():
                raise ModelError(f"{self._engine}: trtexec wrote no times: {child.short(told[-1000:])}")
            return counted(trtexec_times.read_times(exported), options.warm_up_ms * US_PER_MS, wall_s)


def counted(times: TrtexecTimes, warm_up_us: float, wall_s: float) -> Times:
    """Return what trtexec exported, without the warm-up; wall_s: of the whole turn, where the file tells none."""
    first = trtexec_times.first_counted(times, warm_up_us)
    if first == len(times.latency_us):
        first = 0
    measured_us = trtexec_times.wall_us(times, first)
    copies = any(times.h2d_us) or any(times.d2h_us)
    return Times(
        compute_us=times.compute_us[first:],
        enqueue_us=trtexec_times.enqueue_us(times)[first:],
        to_device_us=times.h2d_us[first:] if copies else (),
        to_host_us=times.d2h_us[first:] if copies else (),
        wall_s=measured_us / US_PER_S if measured_us > 0 else wall_s,
    )


def _run(words: tuple[str, ...], timeout_s: float, engine: Path) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{engine}: trtexec does not run it ({child.short(str(error))})") from error
    told = done.stdout + done.stderr
    if done.returncode:
        raise ModelError(f"{engine}: trtexec cannot run it: {child.short(_reason(told, str(engine)))}")
    return told


def _reason(told: str, where: str) -> str:
    try:
        return parse_log(told, where).errors[0]
    except (ModelError, IndexError):
        return told[-500:]
