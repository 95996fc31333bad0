"""What TensorRT and TensorRT-RTX share before an engine runs: their logger, and reading a plan into an engine."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trtq.backends import onnx_file
from trtq.errors import MissingBackendError, ModelError

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
KEPT_MESSAGES = 500
TELLING = ("INTERNAL_ERROR", "ERROR")
# Errors of CUDA's runtime that say: no driver, one that is too old, or no GPU.
NO_GPU = re.compile(r"(?:cudaError |CUDA initialization failure with error: )(35|100|38|803|804|34)\b")
# What follows every error, or explains nothing.
NOISE = ("Thread context has not been set", "catchCudaError", "Loaded engine size")


@dataclass(frozen=True)
class Validity:
    """What a runtime thinks of a plan without loading it: "valid", "suboptimal" or "invalid", and why."""

    state: str
    reasons: tuple[str, ...]


def title(module: Any) -> str:
    """Return a vendor module's name and version, as in "TensorRT-RTX 1.7.1.116"."""
    return f"{TITLES.get(module.__name__, module.__name__)} {module.__version__}"


@cache
def log_of(module: Any) -> Any:
    """Return the one logger that a vendor's library has in this process: it keeps the first that it is given.

    `messages` holds the last (severity, text) pairs above VERBOSE; clear it before a call that may fail.
    """

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.messages: deque[tuple[str, str]] = deque(maxlen=KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity.name != "VERBOSE":
                self.messages.append((severity.name, message))

    return Log()


def deserialize(module: Any, plan: Path) -> Any:
    """Return the vendor's engine of a plan.

    Raises `MissingBackendError` where there is no GPU or no driver, `ModelError` where the file is missing or empty, or
    the vendor refuses it: another version's, another GPU's, or no plan at all.
    """
    data = read(plan)
    messages = log_of(module).messages
    messages.clear()
    runtime = _runtime(module, plan)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        words = telling(module)
        raise _refusal(module, plan, words, validity(module, plan))
    return engine


def validity(module: Any, plan: Path) -> Validity | None:
    """Return what the vendor's runtime thinks of a plan, None where it has no such opinion (TensorRT).

    Only the header is read. Raises `ModelError` where the file is missing or empty.
    """
    runtime = _runtime(module, plan)
    if not hasattr(runtime, "get_engine_validity"):
        return None
    state, bits = runtime.get_engine_validity(read(plan))
    known = module.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, member in known.items() if bits & member.value]
    return Validity(state.name.lower(), tuple(name.lower().replace("_", " ") for name in reasons))


def read(plan: Path) -> bytes:
    """Return a plan's bytes; raises `ModelError` where it is missing or empty."""
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise ModelError(f"{plan}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    if not data:
        raise ModelError(f"{plan}: is an empty file; build the engine again")
    return data


def telling(module: Any) -> str:
    """Return the last errors that the vendor's library logged, on one line; else its last words."""
    messages = [(severity, text) for severity, text in log_of(module).messages if not any(n in text for n in NOISE)]
    errors = [text for severity, text in messages if severity in TELLING] or [text for _, text in messages[-2:]]
    return onnx_file.one_line(" | ".join(dict.fromkeys(errors)), 500) or "it does not say why"


def _runtime(module: Any, plan: Path) -> Any:
    log = log_of(module)
    try:
        # Engines may hold the standard plugins, which have to be known first.
        module.init_libnvinfer_plugins(log, "")
        return module.Runtime(log)
    except (TypeError, RuntimeError) as error:  # TypeError: pybind11 made no object
        raise _refusal(module, plan, telling(module), None) from error


def _refusal(module: Any, plan: Path, words: str, opinion: Validity | None) -> MissingBackendError | ModelError:
    no_gpu = NO_GPU.search(words)
    if no_gpu:
        return MissingBackendError(
            f"{plan}: {title(module)} needs an NVIDIA GPU and its driver to run an engine, and finds none here "
            f"(cudaError {no_gpu[1]}); run it on the machine that it is for"
        )
    because = f" ({', '.join(opinion.reasons)})" if opinion and opinion.reasons else ""
    return ModelError(
        f"{plan}: {title(module)} does not take it{because}: {words}; build it with this version, for this GPU"
    )
