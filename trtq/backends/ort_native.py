"""ONNX Runtime on the CPU in its own terms: the same network, requantized for its integer kernels, for speed.

The back end `ort` runs TensorRT-style files as exported; this one makes them what a CPU is deployed with.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from trtq import files, qdq, rules
from trtq.backends import BuildSpec, Engine, Progress, onnx_file, ort
from trtq.backends.form import form_of
from trtq.backends.ort_extremes import Extremes, extremes
from trtq.backends.ort_requantize import requantize
from trtq.errors import ConfigError, ModelError

NAME = "ort-native"
BUILDS_WITHOUT_GPU = True
PLAN_NAME = "engine.ort-native.onnx"
PACKAGE = "onnxruntime"
TELLS_LAYERS = False
HAS_TARGETS = False
HAS_IMPLICIT_PTQ = True
RUNS_WITHOUT_GPU = True
BATCHNORM_NOT_FOLDED = "TQ204"


def version() -> str:
    """Return ONNX Runtime's version; raises `MissingBackendError` where it is not installed."""
    return ort.version()


def build(spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
    """Write the network with integer kernels to `plan`; same input, same bytes; `spec.targets` do not matter to it.

    A Q/DQ network, and a float one in mode "ptq", is requantized with ranges over `spec.calibration_batches`; any other
    float network is optimized as it is. Weights are not reduced to 7 bits: `load` keeps sums from saturating.
    Raises `ConfigError` where batches are needed and not given, `ModelError`, `DataError`, `BuildError`,
    `MissingBackendError`, `OutputError`.
    """
    installed = version()
    network = onnx_file.check(spec.onnx)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = spec.onnx
        if spec.mode == "ptq" or form_of(network).quantizers:
            source = Path(folder) / "native.onnx"
            _write_native(spec, source, progress)
        plan_bytes = ort.optimize(source, plan, spec.options)
    return Engine(
        backend=NAME,
        version=installed,
        plan=plan,
        targets=(),
        plan_bytes=plan_bytes,
        build_s=time.perf_counter() - start,
        peak_memory_mib=None,
        layers=None,
    )


def load(plan: Path, *, threads: int = 1) -> ort.OrtSession:
    """Load what `build` wrote, or any ONNX file, with all of ONNX Runtime's fusions and integer kernels.

    On x86 processors without VNNI, where sums of uint8 times int8 saturate, it takes its slower exact kernels.
    Raises `ModelError` where the file is missing, broken, or holds what ONNX Runtime cannot run.
    """
    return ort.load_fused(plan, threads=threads)


def prepared(path: Path) -> ir.Model:
    """Return the network in the plain form that `extremes` and `write` take: folded, named, types inferred.

    Raises `ModelError`.
    """
    model = qdq.load(path)
    qdq.clean(model)
    rules.mend(model, select=(BATCHNORM_NOT_FOLDED,))
    passes.ShapeInferencePass()(model)
    return model


def write(model: ir.Model, ranges: Extremes, target: Path) -> None:
    """Requantize what `prepared` returned, which is used up, and write it before any fusion, as Q/DQ.

    ranges: smallest and largest value by tensor, from `extremes` or from elsewhere. Raises what `requantize` raises,
    and `OutputError`.
    """
    metadata = dict(model.metadata_props)
    native = requantize(model, ranges)
    onnx.helper.set_model_props(native, metadata)
    files.write_bytes(target, native.SerializeToString(deterministic=True))


def _write_native(spec: BuildSpec, target: Path, progress: Progress | None) -> None:
    if spec.calibration_batches is None:
        raise ConfigError(
            f"{spec.onnx}: ONNX Runtime's native form needs ranges of all activations; give images with --calibration"
        )
    model = prepared(spec.onnx)
    try:
        write(model, extremes(model, spec.calibration_batches, progress), target)
    except ModelError as error:
        raise ModelError(f"{spec.onnx}: {error}") from error
