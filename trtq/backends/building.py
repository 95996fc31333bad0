"""The parent's half of a build with TensorRT or TensorRT-RTX: plan it, hand it to a worker, say what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtq import files
from trtq.backends import BuildSpec, calibrator, child, onnx_file, planner
from trtq.backends.calls import Call
from trtq.backends.dialects import Dialect
from trtq.backends.form import misfit
from trtq.backends.planner import BuildPlan
from trtq.errors import BuildError, ModelError

# What a worker leaves in the scratch folder beside its log.
LAYERS_NAME, TIMING_CACHE_NAME, CALIBRATION_NAME = "layers.json", "timing.cache", "calibration.cache"


class FormError(ModelError):
    """A file that is whole, and of a form that this TensorRT does not take."""


@dataclass(frozen=True)
class Vendor:
    """A builder: its worker module, and how messages call it."""

    worker: str
    title: str


def log_path(plan: Path) -> Path:
    """Return where the builder's log of a plan is kept."""
    return plan.with_name(plan.name + ".log")


def failed_log_path(plan: Path) -> Path:
    """Return where the log of a build that failed is kept."""
    return plan.with_name(plan.name + ".failed.log")


def plan_for(spec: BuildSpec, dialect: Dialect, *, read_batches: bool = True) -> BuildPlan:
    """Return how `dialect` builds the file that `spec` names, once that file is known to be of a form that it takes.

    read_batches: look at calibration batches too. Raises `ModelError` for a broken file, `FormError` for another form,
    `ConfigError` for what the dialect does not have, and `DataError` for batches that do not fit the network.
    """
    spec = replace(spec, known=onnx_file.known(spec))
    found = onnx_file.known(spec).form
    if spec.mode is None:
        spec = replace(spec, mode="qat" if found.quantizers else "fp16" if found.floats == "float16" else "fp32")
    planned = planner.plan(spec, dialect, quantized=found.quantizers)
    complaint = misfit(planned.form, found, dialect.product)
    if complaint is not None:
        raise FormError(f"{spec.onnx}: {complaint}")
    if read_batches and planned.quantization == "implicit" and spec.calibration_batches is not None:
        calibrator.check_batches(calibrator.batch_files(spec.calibration_batches), _calibration_shape(spec))
    return planned


def request(planned: BuildPlan, plan: Path, folder: Path, *, layers: bool) -> dict[str, Any]:
    """Return what a worker is told about a build: the plan's calls, and where in `folder` its by-products go.

    The worker goes to the network's own folder and names it from there: TensorRT-RTX's FP16 plans differ in a few bytes
    with the length of the path that it parses. layers: whether to ask the engine for its layers, which takes a GPU.
    """
    timing_cache = planned.spec.options.timing_cache
    return {
        "plan": _absolute(plan),
        **_parsing(planned),
        "configure": _json(planned.configure),
        "build": _json(planned.build),
        "dla_core": planned.spec.options.dla_core,
        "calibration": _calibration(planned, folder) if planned.quantization == "implicit" else None,
        "timing_cache": None if timing_cache is None else _absolute(timing_cache),
        "new_timing_cache": _absolute(folder / TIMING_CACHE_NAME),
        "layers": _absolute(folder / LAYERS_NAME) if layers else None,
    }


@contextmanager
def kept_log(plan: Path, folder: Path, header: str = "") -> Iterator[None]:
    """Keep the worker's log beside `plan`: as `<plan>.log` when the block ends well, as `<plan>.failed.log` when not.

    header: a first line. Raises `OutputError`.
    """
    try:
        yield
    except (ModelError, BuildError):
        if log := child.log_of(folder):
            files.write_text(failed_log_path(plan), header + log)
        raise
    files.write_text(log_path(plan), header + child.log_of(folder))
    failed_log_path(plan).unlink(missing_ok=True)


def built(outcome: child.Outcome, planned: BuildPlan, vendor: Vendor) -> Mapping[str, Any]:
    """Return the facts of a build that left a plan; raises `ModelError` or `BuildError` saying why there is none."""
    facts, source = outcome.facts, planned.spec.onnx
    if "parse_errors" in facts:
        raise ModelError(f"{source}: {_parse_reason(facts['parse_errors'], vendor)}")
    if "dla_cores" in facts:
        raise BuildError(
            f"{source}: asks for DLA core {planned.spec.options.dla_core}, and {vendor.title} finds "
            f"{facts['dla_cores']} here; leave dla_core out to build for the GPU"
        )
    if not facts["built"]:
        raise BuildError(f"{source}: {vendor.title} cannot build it: {outcome.reason}")
    return facts


def _parsing(planned: BuildPlan) -> dict[str, Any]:
    source = planned.spec.onnx
    named = [
        replace(call, arguments=tuple(source.name if one == str(source) else one for one in call.arguments))
        for call in planned.parse
    ]
    return {"network_folder": _absolute(source.parent), "parse": _json(named)}


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _json(calls: Sequence[Call]) -> list[Any]:
    return [call.to_json() for call in calls]


def _calibration(planned: BuildPlan, folder: Path) -> dict[str, Any]:
    cache, batches = planned.spec.calibration_cache, planned.spec.calibration_batches
    return {
        "algorithm": "entropy",
        "cache": None if cache is None else _absolute(cache),
        "batches": [] if batches is None else [_absolute(one) for one in calibrator.batch_files(batches)],
        "written": _absolute(folder / CALIBRATION_NAME),
    }


def _calibration_shape(spec: BuildSpec) -> tuple[int, ...]:
    """Return the shape that calibration runs with: the usual one of the first profile, or the network's own."""
    if spec.options.profiles:
        return spec.options.profiles[0][0].usual
    return calibrator.input_shape(onnx_file.load(spec.onnx))


def _parse_reason(errors: list[dict[str, Any]], vendor: Vendor) -> str:
    if not errors:
        return f"{vendor.title} cannot parse it, and does not say why"
    first = errors[0]
    reason = child.telling(first["reason"])
    # Before 10.0 the parser gives the node's number alone.
    node = f"node '{first['node']}' ({first['operator']})" if first["operator"] else f"node {first['index']}"
    if not first["operator"] and first["index"] < 0:
        node = "it"
    return f"{vendor.title} does not take {node}{f': {reason}' if reason else ''}"
