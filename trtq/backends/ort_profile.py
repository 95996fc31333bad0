"""How long each operator takes in ONNX Runtime, by its own profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trtq import layers
from trtq.backends import ort
from trtq.layers.graph import LayerGraph

RUNS, WARMUP_RUNS = 50, 5
KERNEL_TIME = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """One operator of the network as ONNX Runtime runs it, after its fusions; the median over all runs."""

    name: str
    operator: str
    median_us: float


def profile(
    plan: Path, feeds: Mapping[str, npt.NDArray[Any]], *, runs: int = RUNS, threads: int = 1
) -> tuple[NodeTime, ...]:
    """Return the time of each operator of an ONNX file on this CPU, with every fusion, in the order they run.

    The sum exceeds an undisturbed run: the profiler writes an event for each. Raises `ModelError` where the feeds do
    not fit or ONNX Runtime cannot run the file, `MissingBackendError` without it.
    """
    with tempfile.TemporaryDirectory() as folder:
        session, end = ort.load_profiled(plan, Path(folder) / "profile", threads=threads)
        for _ in range(WARMUP_RUNS + runs):
            session.run(feeds)
        events = json.loads(Path(end()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME):
            name = event["name"].removesuffix(KERNEL_TIME)
            times.setdefault(name, []).append(event["dur"])
            operators[name] = event["args"]["op_name"]
    return tuple(
        NodeTime(name, operators[name], statistics.median(all_us[WARMUP_RUNS:])) for name, all_us in times.items()
    )


def measured_layers(
    plan: Path, feeds: Mapping[str, npt.NDArray[Any]], *, runs: int = RUNS, threads: int = 1
) -> LayerGraph:
    """Return the layers that ONNX Runtime runs of an ONNX file on this CPU, after every fusion, with median times.

    Raises as `profile` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.onnx"
        session, end = ort.load_profiled(plan, Path(folder) / "profile", threads=threads, network=network)
        for _ in range(WARMUP_RUNS + runs):
            session.run(feeds)
        graph = layers.read(network, Path(end()))
    return replace(graph, source=f"ONNX Runtime {ort.version()}")
