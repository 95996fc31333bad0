"""The build half that TensorRT and TensorRT-RTX share in a worker: functions that take the vendor's module.

A request holds a plan's calls as JSON; the worker makes them and nothing else decides there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from trtq.backends import calls, worker
from trtq.backends.calls import Call

MakeCalibrator = Callable[..., Any]


def work(
    vendor: Any, request: Mapping[str, Any], log_file: IO[str], make_calibrator: MakeCalibrator | None = None
) -> dict[str, Any]:
    """Do a request of `building.request`: parse, configure and build, or tell why not.

    make_calibrator: `calibrator.make` where the vendor has implicit PTQ; it is given the request's calibration.
    """
    log = make_log(vendor, log_file)
    held = calls.execute(vendor, _calls(request["parse"]), {calls.LOG: log})
    if not held[calls.PARSED]:
        return {"parse_errors": parse_errors(held[calls.PARSER])}
    cores = held[calls.BUILDER].num_DLA_cores if request["dla_core"] is not None else None
    if cores is not None and request["dla_core"] >= cores:
        return {"dla_cores": cores}
    brought = {calls.PROGRESS: make_progress(vendor), calls.TIMING_CACHE: _bytes(request["timing_cache"])}
    if request["calibration"] is not None:
        assert make_calibrator is not None
        brought[calls.CALIBRATOR] = make_calibrator(vendor, **request["calibration"])
    return _build(vendor, request, {**held, **brought})


def make_log(vendor: Any, file: IO[str]) -> Any:
    """Return a logger of the vendor's that writes each message to `file` at once, so that a crash keeps the last ones.

    A process has one: the first logger of the first live builder wins.
    """

    class Log(vendor.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            vendor.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            file.write(f"[{severity.name}] {message}\n")
            file.flush()

    return Log()


def make_progress(vendor: Any) -> Any | None:
    """Return a monitor that tells the parent about the build's phases, None where the vendor's version has none."""
    if not hasattr(vendor, "IProgressMonitor"):
        return None

    class Progress(vendor.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            vendor.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            worker.tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            worker.tell(phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            worker.tell(phase_name, steps, steps)

    return Progress()


def parse_errors(parser: Any) -> list[dict[str, Any]]:
    """Return what an ONNX parser holds against a file: the node's index, name and operator, and the reason.

    Versions whose parser does not name nodes leave name and operator empty.
    """
    return [_parse_error(parser.get_error(index)) for index in range(parser.num_errors)]


def layer_information(vendor: Any, serialized: Any, log: Any, dla_core: int | None) -> str | None:
    """Return what the engine inspector tells about a plan, as JSON; None where the plan cannot be loaded here.

    With an execution context, because only then do the tensors' formats stand in it.
    """
    runtime = vendor.Runtime(log)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:
        inspector.execution_context = context
    return str(inspector.get_engine_information(vendor.LayerInformationFormat.JSON))


def _build(vendor: Any, request: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    held = calls.execute(vendor, _calls(request["configure"]), held)
    start = time.perf_counter()
    held = calls.execute(vendor, _calls(request["build"]), held)
    build_s = time.perf_counter() - start
    serialized = held[calls.SERIALIZED]
    peak_memory_mib = worker.peak_memory_mib()
    if serialized is not None:
        Path(request["plan"]).write_bytes(serialized)
        _keep(vendor, request, held)
    return {"build_s": build_s, "peak_memory_mib": peak_memory_mib, "built": serialized is not None}


def _keep(vendor: Any, request: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Write what a build leaves beside its plan: the timing cache and the layers."""
    if request["timing_cache"] is not None:
        cache = held[calls.CONFIG].get_timing_cache()
        Path(request["new_timing_cache"]).write_bytes(cache.serialize())
    if request["layers"] is not None:
        serialized, log = held[calls.SERIALIZED], held[calls.LOG]
        layers = layer_information(vendor, serialized, log, request["dla_core"])
        if layers is not None:
            Path(request["layers"]).write_text(layers, encoding="utf-8")


def _calls(values: list[Any]) -> list[Call]:
    return [calls.from_json(value) for value in values]


def _bytes(path: str | None) -> bytes:
    return Path(path).read_bytes() if path is not None and Path(path).is_file() else b""


def _parse_error(error: Any) -> dict[str, Any]:
    return {
        "index": error.node(),
        "node": error.node_name() if hasattr(error, "node_name") else "",
        "operator": error.node_operator() if hasattr(error, "node_operator") else "",
        "reason": error.desc(),
    }
