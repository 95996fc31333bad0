"""Broken and hostile ONNX files: refused with one sentence that names the cause, and nothing left behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.hostile_case import BUILT, Case
from benchmarks.hostile_cases import CASES
from trtq import cli

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")

# One or more of each class; the benchmark runs them all.
CHOSEN = frozenset(
    [
        "empty",
        "text",
        "zip",
        "truncated",
        "promised-gigabytes",
        "folder",
        "missing",
        "symlink-loop",
        "pipe",
        "endless-device",
        "no-outputs",
        "cycle",
        "missing-initializer",
        "undefined-output",
        "duplicate-tensor",
        "shapes-do-not-add",
        "opset-99",
        "no-opset",
        "function-calls-itself",
        "nested-too-deep",
        "weights-missing",
        "weights-short",
        "weights-beside",
        "weights-before-the-file",
        "weights-outside",
        "weights-link-outside",
        "weights-unnamed",
        "unknown-operator",
        "double-input",
        "qlinear-convolution",
        "dynamic-quantize",
        "asymmetric",
        "uint8",
        "uint8-fixed",
        "no-zero-point",
        "scale-zero",
        "scale-nan",
        "scale-infinite",
        "scale-denormal",
        "scales-of-wrong-length",
        "scales-on-no-axis",
        "per-channel-activation",
        "int32-bias",
        "computed-scale",
        "computed-scale-fixed",
        "scale-from-input",
        "int16",
        "nan-weights",
        "tensor-data-short",
        "overflowing-size",
        "negative-input",
        "dynamic-without-profile",
        "names-as-markup",
        "escapes-in-a-refusal",
        "no-utf8-in-a-name",
        "no-utf8-in-an-operator",
        "file-name-with-escapes",
        "file-name-not-utf8",
    ]
)
QUICK = [case for case in CASES if case.name in CHOSEN]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_hostile_file(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    path, out = case.make(tmp_path / "in"), tmp_path / "out"
    arguments = ["trtq", "build", str(path), "--backend", "rtx", "-o", str(out), *(["--fix"] if case.fix else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert (stop.value.code or 0) == case.code, said
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
    plans = list(out.glob("*.plan"))
    if case.code == BUILT:
        assert len(plans) == 1
        return
    sentences = [line for line in said.splitlines() if line.startswith("trtq: ")]
    assert len(sentences) == 1, said
    assert re.search(case.says, sentences[0]), said
    assert not plans
    assert {file.name for file in out.glob("*")} <= {".lock", "engine.rtx.plan.failed.log"}


def test_every_class_is_there() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(QUICK) == len(CHOSEN)
