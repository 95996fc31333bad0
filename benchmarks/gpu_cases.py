"""The child half of benchmarks.gpu_runtime: one case a process, since a foreign plan may end it; writes one JSON file.

Needs numpy, tensorrt_rtx and cuda-python; no torch, no graphviz, no ONNX Runtime.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import files
from trtq.errors import TrtqError

TIMED_RUNS = 100
PROFILED_RUNS = 20
ROUNDS = 20
WARM_UP_S = 0.2
LOAD_CYCLES = 10
CYCLES_S = 15.0
BATCHES = (1, 3, 8, 2)  # the third is the largest that the profile takes
JUNK_BYTES = b"this is no plan " * 64
IMPOSSIBLE_BYTES = 1 << 50
KEPT_LINES = 60

Arrays = dict[str, npt.NDArray[Any]]


class Outcome(dict[str, Any]):
    """What a case has found so far; written after every step, so that the end of the process costs one step alone."""

    def __init__(self, target: Path) -> None:
        super().__init__(ok=False)
        self._target = target

    def save(self) -> None:
        files.write_json(self._target, plain(self))

    def step(self, name: str, work: Callable[[], Any]) -> None:
        """Note what a step gives, or what it raises."""
        try:
            self[name] = work()
        except Exception as error:
            self[name] = {"error": said(error)}
        self.save()


def main(request: dict[str, Any], target: Path) -> None:
    """Do one case and write its outcome; what any step raises is part of the outcome."""
    outcome = Outcome(target)
    try:
        CASES[request["case"]](request, outcome)
        outcome["ok"] = True
    except BaseException as error:
        outcome["error"] = said(error)
    outcome["log"] = logged()
    outcome.save()


def device(request: dict[str, Any], outcome: Outcome) -> None:
    """What the GPU, the driver and the packages are, and that impossible memory is refused in one sentence."""
    from trtq.backends.cuda import device_memory, open_cuda

    cuda = open_cuda()
    outcome["device"] = vars(cuda.device())
    try:
        with device_memory(cuda, IMPOSSIBLE_BYTES):
            outcome["impossible_memory"] = "was given"
    except TrtqError as error:
        outcome["impossible_memory"] = said(error)


def build(request: dict[str, Any], outcome: Outcome) -> None:
    """Build an ONNX file for some compute capabilities, with the settings of trtq's own builds."""
    import tensorrt_rtx as trt

    from trtq.backends.loading import log_of

    log = log_of(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(request["onnx"]):
        raise RuntimeError(" | ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.max_aux_streams = 0
    config.num_compute_capabilities = len(request["targets"])
    for index, name in enumerate(request["targets"]):
        config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
    add_profile(builder, network, config)
    start = time.perf_counter()
    serialized = builder.build_serialized_network(network, config)
    outcome["build_s"] = time.perf_counter() - start
    if serialized is None:
        raise RuntimeError("the builder gives no plan")
    Path(request["plan"]).write_bytes(serialized)
    outcome["plan_bytes"] = Path(request["plan"]).stat().st_size
    outcome["plan_sha256"] = files.sha256(Path(request["plan"]))


def add_profile(builder: Any, network: Any, config: Any) -> None:
    """Give a dynamic first input batches of 1 to 8."""
    given = network.get_input(0)
    dims = tuple(given.shape)
    if -1 in dims:
        profile = builder.create_optimization_profile()
        profile.set_shape(given.name, *(tuple(one if dim < 0 else dim for dim in dims) for one in (1, 4, 8)))
        config.add_optimization_profile(profile)


def run(request: dict[str, Any], outcome: Outcome) -> None:
    """Load a plan, run it on every sample, compare, time, profile and inspect; each step on its own."""
    import tensorrt_rtx as trt

    from trtq.backends import loading, runtime

    plan = Path(request["plan"])
    outcome["validity"] = vars(loading.validity(trt, plan))
    samples, references = read_samples(Path(request["samples"]))
    start = time.perf_counter()
    with runtime.load_plan(trt, plan) as session:
        outcome["loaded"] = {"deserialize_s": session.deserialize_s, "context_s": session.context_s}
        outcome["inputs"] = [vars(one) for one in session.inputs]
        outcome["outputs"] = [vars(one) for one in session.outputs]
        results = [session.run(feeds) for feeds in samples]
        outcome["loaded"]["first_run_s"] = session.first_run_s
        outcome["loaded"]["ready_s"] = time.perf_counter() - start
        outcome["sqnr_db"] = {kind: compared(results, wanted) for kind, wanted in references.items()}
        outcome["same_again"] = all(
            np.array_equal(value, results[0][name]) for name, value in session.run(samples[0]).items()
        )
        outcome.save()
        for name, options in TIMINGS.items() if request["thorough"] else list(TIMINGS.items())[:2]:
            outcome.step(f"times_{name}", partial(timed, session, samples[0], options))
        outcome.step("layers", lambda: profiled_layers(session, samples[0]))
        outcome.step("inspector", session.inspect)
    if request["thorough"]:
        cache = plan.with_suffix(".cache")
        outcome.step("built_in_graph", lambda: with_options(trt, plan, samples[0], built_in_graph=True))
        for name in ("cache_written", "cache_read"):
            outcome.step(name, lambda: with_options(trt, plan, samples[0], runtime_cache=cache))
        outcome.step("cache_bytes", lambda: cache.stat().st_size)
        outcome.step("memory", lambda: memory_after_cycles(trt, plan, samples[0]))


TIMINGS: dict[str, dict[str, bool]] = {
    "stream": {},
    "graph": {"cuda_graph": True},
    "transfers": {"transfers": True},
    "blocking": {"cuda_graph": True, "spin": False},
}


def timed(session: Any, feeds: Arrays, options: dict[str, bool]) -> dict[str, Any]:
    """Return the raw times of runs after a warm-up, and their median."""
    with session.prepare(feeds, **options) as launch:
        launch.warm_up(WARM_UP_S)
        times = launch.time(iterations=TIMED_RUNS)
    return {"options": options, **vars(times), "median_us": float(np.median(times.compute_us))}


def profiled_layers(session: Any, feeds: Arrays) -> dict[str, Any]:
    """Return the profile's median times, and what the inspector's layers are once they have them."""
    profile = session.profile(feeds, iterations=PROFILED_RUNS)
    found: dict[str, Any] = {"profile_us": [[one.name, float(np.median(one.times_us))] for one in profile]}
    graph = session.layers(profile)
    kinds = [layer.kind for layer in graph.layers]
    return {
        **found,
        "source": graph.source,
        "timed": sum(layer.time_us is not None for layer in graph.layers),
        "kinds": {kind: kinds.count(kind) for kind in kinds},
        "signals": vars(graph.signals),
    }


def with_options(trt: Any, plan: Path, feeds: Arrays, **options: Any) -> dict[str, Any]:
    """Load once more with TensorRT-RTX's own ways of running, and say what loading and running took."""
    from trtq.backends import runtime

    with runtime.load_plan(trt, plan, options=runtime.RunOptions(**options)) as session:
        session.run(feeds)
        facts = {"context_s": session.context_s, "first_run_s": session.first_run_s}
        with session.prepare(feeds) as launch:
            launch.warm_up(WARM_UP_S)
            times = launch.time(iterations=TIMED_RUNS)
        return {**facts, "median_us": float(np.median(times.compute_us))}


def memory_after_cycles(trt: Any, plan: Path, feeds: Arrays) -> dict[str, Any]:
    """Load, run and close again and again; what is free on the GPU after each must not shrink."""
    from cuda.bindings import runtime as cudart

    from trtq.backends import runtime

    free: list[int] = []
    end = time.monotonic() + CYCLES_S
    while len(free) < 2 or (len(free) < LOAD_CYCLES and time.monotonic() < end):
        with runtime.load_plan(trt, plan) as session:
            session.run(feeds)
        free.append(cudart.cudaMemGetInfo()[1])
    return {"free_bytes": free, "lost_bytes": free[1] - free[-1]}


def dynamic(request: dict[str, Any], outcome: Outcome) -> None:
    """Run a plan with a dynamic batch on several batches, and on one outside of its profile."""
    import tensorrt_rtx as trt

    from trtq.backends import runtime

    samples, references = read_samples(Path(request["samples"]))
    name = next(iter(samples[0]))
    together = np.concatenate([one[name] for one in samples])
    (output, wanted), *_ = references["same file"].items()
    for specialization in (None, "eager", "none"):
        options = runtime.RunOptions(specialization=specialization)
        found = outcome[f"kernels_{specialization or 'default'}"] = {}
        with runtime.load_plan(trt, Path(request["plan"]), options=options) as session:
            for batch in BATCHES:
                given = session.run({name: together[:batch]})[output]
                found[f"batch_{batch}"] = {"sqnr_db": sqnr_db(wanted[:batch].reshape(given.shape), given)}
            for way in ("stream", "graph"):
                try:
                    found[way] = timed(session, {name: together[: BATCHES[1]]}, TIMINGS[way])
                except TrtqError as error:
                    found[way] = {"error": said(error)}
            try:
                session.run({name: np.concatenate([together, together])[: BATCHES[2] + 1]})
            except TrtqError as error:
                found["outside"] = said(error)
            found["after_the_refusal"] = sqnr_db(wanted[:1].ravel(), session.run({name: together[:1]})[output].ravel())
        outcome.save()


def interleaved(request: dict[str, Any], outcome: Outcome) -> None:
    """Hold several plans at once, each with its own stream and CUDA graph, and time them in turn: A B A B."""
    import tensorrt_rtx as trt

    from trtq.backends import runtime

    with ExitStack() as stack:
        launches = {}
        for name, files_of in request["plans"].items():
            session = stack.enter_context(runtime.load_plan(trt, Path(files_of["plan"])))
            samples, _ = read_samples(Path(files_of["samples"]))
            launches[name] = stack.enter_context(session.prepare(samples[0], cuda_graph=True))
            launches[name].warm_up(WARM_UP_S)
        times: dict[str, list[float]] = {name: [] for name in launches}
        for _ in range(ROUNDS):
            for name, launch in launches.items():
                times[name].extend(launch.time(iterations=TIMED_RUNS // ROUNDS).compute_us)
    outcome["compute_us"] = times
    outcome["median_us"] = {name: float(np.median(values)) for name, values in times.items()}


def broken(request: dict[str, Any], outcome: Outcome) -> None:
    """Load what is no plan of this version: junk, or a plan that is cut short or damaged."""
    import tensorrt_rtx as trt

    from trtq.backends import loading

    data = Path(request["plan"]).read_bytes()
    damaged = {
        "junk": JUNK_BYTES,
        "cut": data[: len(data) // 2],
        "damaged": data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
    }[request["how"]]
    plan = Path(request["plan"]).with_suffix(f".{request['how']}")
    plan.write_bytes(damaged)
    try:
        loading.deserialize(trt, plan)
        outcome["loaded"] = True
    except TrtqError as error:
        outcome["sentence"] = said(error)


def whole_way(request: dict[str, Any], outcome: Outcome) -> None:
    """Build and load through the back end itself, manifest and all."""
    from trtq.backends import BuildSpec, manifest, rtx, rtx_runner
    from trtq.machine import machine

    samples, references = read_samples(Path(request["samples"]))
    spec, plan = BuildSpec(Path(request["onnx"]), tuple(request["targets"])), Path(request["plan"])
    engine = rtx.build(spec, plan)
    outcome["plan_bytes"] = engine.plan_bytes
    here = machine(ask_driver=True)
    outcome["machine"] = here.to_json()
    manifest.write(manifest.identify(spec, rtx.NAME, rtx.version()), engine, spec, here, {})
    session = rtx_runner.load(plan)
    results = [session.run(feeds) for feeds in samples]
    outcome["sqnr_db"] = {kind: compared(results, wanted) for kind, wanted in references.items()}


CASES: dict[str, Callable[[dict[str, Any], Outcome], None]] = {
    "device": device, "build": build, "run": run, "dynamic": dynamic, "interleaved": interleaved,
    "broken": broken, "whole_way": whole_way,
}  # fmt: skip


def read_samples(path: Path) -> tuple[list[Arrays], dict[str, Arrays]]:
    """Return the feeds one by one, and every kind of reference outputs, stacked over the samples, by name."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    inputs = {name.removeprefix("input:"): array for name, array in arrays.items() if name.startswith("input:")}
    count = len(next(iter(inputs.values())))
    references: dict[str, Arrays] = {}
    for name, array in arrays.items():
        kind, _, output = name.partition("|")
        if output:
            references.setdefault(kind, {})[output] = array
    return [{name: array[index] for name, array in inputs.items()} for index in range(count)], references


def compared(results: list[Arrays], wanted: Arrays) -> dict[str, float | None]:
    return {name: sqnr_db(array, np.stack([one[name] for one in results])) for name, array in wanted.items()}


def sqnr_db(reference: npt.NDArray[Any], other: npt.NDArray[Any]) -> float | None:
    """Return 10 log10 of signal over noise power; None where both are equal."""
    wide = reference.astype(np.float64)
    power = float(np.square(wide - other.astype(np.float64)).sum())
    return None if power == 0 else round(10 * float(np.log10(np.square(wide).sum() / power)), 2)


def said(error: BaseException) -> dict[str, str]:
    facts = {"type": type(error).__name__, "message": str(error)}
    return facts if isinstance(error, TrtqError) else {**facts, "traceback": traceback.format_exc()[-3000:]}


def logged() -> list[str]:
    """Return the last lines that TensorRT-RTX logged in this process."""
    try:
        import tensorrt_rtx as trt

        from trtq.backends.loading import log_of

        return [f"[{severity}] {text[:1000]}" for severity, text in log_of(trt).messages][-KEPT_LINES:]
    except Exception as error:
        return [f"no log: {error!r}"]


def plain(value: Any) -> Any:
    """Return the value as JSON holds it; infinite and undefined numbers become words."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.floating, float)):
        return round(float(value), 3) if np.isfinite(value) else str(value)
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
