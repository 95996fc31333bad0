"""Broken and hostile ONNX files through `trtq build --backend rtx`, each as a process of its own.

Counted: crashes and tracebacks of trtq, answers that are not one sentence that names the cause, and wrong engines: an
engine of a file that had to be refused, or, where `--fix` mended it first, one whose file differs from the original in
ONNX Runtime by more than quantization explains. Then preflight alone, in one process, on thousands of damaged files.

    python -m benchmarks.hostile_files
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.hostile_case import BUILT, Case
from benchmarks.hostile_cases import CASES
from benchmarks.hostile_networks import FLIPS, SHAPE, computed_scale, nested, plain, quantized
from benchmarks.recording import ROOT, record
from trtq.backends import BuildSpec
from trtq.errors import TrtqError
from trtq.pipeline import preflight

TIMEOUT_S = 300
DAMAGED_FILES = 5000
SOUND = (quantized, plain, computed_scale, lambda: quantized(bias=True), lambda: nested(4))
LEAST_SQNR_DB = 20.0
FATAL_ONLY = 4
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Answer:
    """What trtq answered: `faults` is what was wrong with that, empty where all is well."""

    name: str
    kind: str
    exit_code: int
    seconds: float
    says: str
    sqnr_db: float | None
    faults: tuple[str, ...]


def main() -> None:
    """Run every case and record what came of it."""
    answers = [_run(case) for case in CASES]
    damaged = _damaged()
    faults = Counter(fault for one in answers for fault in one.faults)
    result: dict[str, Any] = {
        "files": len(answers),
        "by_kind": Counter(one.kind for one in answers),
        "refused": sum(one.exit_code != BUILT for one in answers),
        "built": sum(one.exit_code == BUILT for one in answers),
        "faults": faults,
        "crashes_of_trtq": faults["crash"],
        "tracebacks": faults["traceback"],
        "wrong_engines": faults["wrong engine"],
        "preflight_of_damaged_files": damaged,
        "seconds": round(sum(one.seconds for one in answers), 1),
        "answers": [asdict(one) for one in answers],
    }
    record("hostile_files", "python -m benchmarks.hostile_files", result)
    for one in answers:
        if one.faults:
            print(f"{one.name}: {', '.join(one.faults)}\n  {one.exit_code}: {one.says}")


def _damaged() -> dict[str, int]:
    """Return what preflight alone, in this process, says to many damaged copies of sound and unsound networks."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "net.onnx"
        for seed in range(DAMAGED_FILES):
            random_bytes = random.Random(seed)
            content = bytearray(random_bytes.choice(SOUND)().SerializeToString())
            for _ in range(random_bytes.randrange(1, FLIPS + 1)):
                content[random_bytes.randrange(len(content))] = random_bytes.randrange(256)
            path.write_bytes(content)
            counts[_said(path)] += 1
    return dict(counts)


def _said(path: Path) -> str:
    try:
        preflight.check(BuildSpec(path), "rtx", "1.7")
    except TrtqError:
        return "refused"
    except Exception as error:  # every other one is a fault of trtq's
        return f"fault: {type(error).__name__}: {error}"
    return "let through"


def _run(case: Case) -> Answer:
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "in", Path(scratch) / "out"
        folder.mkdir()
        path = case.make(folder)
        command = [sys.executable, "-m", "trtq", "build", str(path), "--backend", "rtx", "-o", str(out)]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, *(["--fix"] if case.fix else [])],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        seconds = round(time.perf_counter() - started, 2)
        said = done.stderr.decode(errors="replace")
        sentences = [line for line in said.split("\n") if line.startswith("trtq: ")]
        mended = out / f"{path.stem}.mended.onnx"
        sqnr_db = _sqnr_db(path, mended) if mended.is_file() else None
        faults = tuple(_faults(case, done.returncode, said, sentences, list(out.glob("*.plan")), sqnr_db))
        says = (sentences[-1] if sentences else "").replace(scratch, "")
    return Answer(case.name, case.kind, done.returncode, seconds, says[:400], sqnr_db, faults)


def _faults(
    case: Case, code: int, said: str, sentences: list[str], plans: list[Path], sqnr_db: float | None
) -> list[str]:
    faults = []
    if code < 0 or code not in (0, 2, 4):
        faults.append("crash")
    if "Traceback" in said:
        faults.append("traceback")
    if CONTROL.search(said):
        faults.append("control characters")
    if case.code is not None and code != case.code:
        faults.append("wrong engine" if code == BUILT else "exit code")
    if code != BUILT and (len(sentences) != 1 or not re.search(case.says, sentences[0])):
        faults.append("cause not named")
    if bool(plans) != (code == BUILT):
        faults.append("wrong engine" if plans else "no engine")
    if case.fix and (sqnr_db is None or sqnr_db < LEAST_SQNR_DB):
        faults.append("wrong engine")
    return faults


def _sqnr_db(original: Path, mended: Path) -> float:
    # Inside the range of every file that is mended: uint8 without an offset holds nothing below zero.
    image = np.random.default_rng(0).uniform(0, 3, SHAPE).astype(np.float32)
    one, other = (_output(path, image) for path in (original, mended))
    noise = float(np.square(one - other).mean())
    return round(10 * np.log10(float(np.square(one).mean()) / noise), 1) if noise else 999.0


def _output(path: Path, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


if __name__ == "__main__":
    main()
