"""`trtexec`: engines by TensorRT's own command line, for machines that have the program and no Python module.

The program is the one that TRTEXEC names, or on PATH, or where NVIDIA's packages put it. Not run on a GPU yet.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from trtq import files
from trtq.backends import BuildSpec, Engine, Progress, building, child, command, dialects, doctor
from trtq.backends.dialects import Dialect
from trtq.errors import BuildError, MissingBackendError, ModelError
from trtq.layers.trtexec_log import TrtexecLog, parse_log
from trtq.machine import machine

NAME = "trtexec"
BUILDS_WITHOUT_GPU = False
PLAN_NAME = "engine.trtexec.plan"
PACKAGE = "tensorrt"
TELLS_LAYERS = False
HAS_TARGETS = False
# It reads calibration caches; it does not calibrate.
HAS_IMPLICIT_PTQ = False
WORKER = "trtq.backends.trtexec_worker"
PROGRAM_VARIABLE = "TRTEXEC"
HELP_TIMEOUT_S = 60
PASSED = "PASSED"


def version() -> str:
    """Return the version of the TensorRT that trtexec belongs to; raises `MissingBackendError` where it is missing."""
    return _help_of(program())[0]


def dialect() -> Dialect:
    """Return what the installed trtexec can do, by its help text; raises `MissingBackendError`."""
    installed, text = _help_of(program())
    return dialects.from_help(text, installed)


def build(spec: BuildSpec, plan: Path, *, progress: Progress | None = None) -> Engine:
    """Build `spec.onnx` into `plan` with trtexec, whose output is kept beside it as `<plan>.log`.

    Implicit PTQ needs a calibration cache. Raises `ConfigError` for what this trtexec cannot say, `ModelError` for a
    broken file or one of another form, `BuildError` where trtexec fails or crosses a limit of `spec.options`,
    `MissingBackendError` and `OutputError`.
    """
    planned = building.plan_for(spec, dialect())
    with files.atomic_path(plan) as temporary, child.scratch() as scratch:
        temporary.unlink()
        _, *arguments = command.build_command(planned, temporary)
        request = {"command": [program(), *arguments]}
        job = child.Job(WORKER, NAME, spec.onnx, plan.parent, request, spec.options)
        with building.kept_log(plan, scratch):
            facts = child.run(job, scratch, progress).facts
            told = _told(spec, child.log_of(scratch), facts["code"])
            if not temporary.is_file():
                raise BuildError(f"{spec.onnx}: trtexec says that it passed, and wrote no engine; see its log")
        plan_bytes = temporary.stat().st_size
    return Engine(
        backend=NAME,
        version=version(),
        plan=plan,
        targets=tuple(gpu.sm for gpu in machine(ask_driver=True).gpus[:1] if gpu.sm is not None),
        plan_bytes=plan_bytes,
        build_s=told.built_s or 0.0,
        peak_memory_mib=facts["peak_memory_mib"],
        layers=None,
        notes=planned.notes,
    )


def _told(spec: BuildSpec, log: str, code: int) -> TrtexecLog:
    """Return what trtexec says about a build that succeeded; raises `BuildError` for one that did not."""
    try:
        told = parse_log(log, str(spec.onnx))
    except ModelError as error:
        raise BuildError(f"{spec.onnx}: trtexec ended with {code}: {child.short(log[-1000:])}") from error
    if code or told.status != PASSED:
        reason = told.errors[0] if told.errors else f"it ended with {code} and does not say why"
        raise BuildError(f"{spec.onnx}: trtexec of TensorRT {_text(told)} cannot build it: {child.short(reason)}")
    return told


def program() -> str:
    """Return where trtexec lies; raises `MissingBackendError` where it is not here."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = named if named and Path(named).is_file() else None if named else doctor.find_program(NAME)
    if found is None:
        where = f"{PROGRAM_VARIABLE}={named} is no file" if named else "it is not on PATH"
        raise MissingBackendError(
            f"trtexec is not here ({where}); JetPack puts it in /usr/src/tensorrt/bin, and NVIDIA's tar and image have "
            "it; `--dry-run` prints the command for another machine"
        )
    return found


@cache
def _help_of(program: str) -> tuple[str, str]:
    """Return a trtexec's version and help text."""
    try:
        done = subprocess.run(
            [program, "--help"], capture_output=True, text=True, errors="replace", timeout=HELP_TIMEOUT_S, check=False
        )
        text = done.stdout + done.stderr
        return _text(parse_log(text, program)), text
    except (OSError, subprocess.TimeoutExpired, ModelError) as error:
        raise MissingBackendError(f"{program}: does not run as trtexec ({child.short(str(error))})") from error


def _text(log: TrtexecLog) -> str:
    return ".".join(map(str, log.version))
