"""trtexec: its commands against its real help text, its logs as real runs left them, and the process around it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from tests.backends import planner_cases
from tests.backends.test_planner import network
from trtq.backends import BuildOptions, BuildSpec, command, dialects, doctor, planner, trtexec
from trtq.backends.dialects import DIALECTS
from trtq.errors import BuildError, ConfigError, MissingBackendError

LOGS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines" / "trtexec-logs"
HELP, BUILD = LOGS / "trt10.16.1-help.txt", LOGS / "trt10.16.1.log"
real = pytest.mark.skipif(not LOGS.is_dir(), reason="the logs of real trtexec runs are absent")


def options(line: str) -> set[str]:
    return set(re.findall(r"(--[A-Za-z0-9]+)", line))


def recorded() -> dict[str, list[str]]:
    """Return the command lines of the golden file by dialect."""
    lines: dict[str, list[str]] = {}
    for line in planner_cases.lines():
        if line.startswith("==== "):
            name = line.split()[1].rstrip(":")
        elif line.startswith(("$ ", "bench: ")):
            lines.setdefault(name, []).append(line)
    return lines


@real
def test_every_option_is_in_the_help_text() -> None:
    known = options(HELP.read_text())
    used = set().union(*map(options, recorded()["trt10.16"]))
    assert len(used) > 15
    assert used - known == set()


def test_11_is_given_nothing_that_it_took_away() -> None:
    gone = {"--fp16", "--int8", "--calib", "--buildOnly", *command.NORMALISED}
    for name in ("trt11.4", "rtx"):
        assert not set().union(*map(options, recorded()[name])) & gone


def test_8_5_has_no_skip_inference() -> None:
    used = set().union(*map(options, recorded()["trt8.5"]))
    assert "--buildOnly" in used
    assert not used & {"--skipInference", "--builderOptimizationLevel", "--profile", "--stronglyTyped"}


def test_benchmarks_mean_the_same() -> None:
    # What 11 does unasked, older versions are told; the rest is one and the same.
    lines = {name: next(line for line in found if line.startswith("bench")) for name, found in recorded().items()}
    assert {one for one in options(lines["trt10.16"]) if one not in options(lines["trt11.4"])} == set(
        command.NORMALISED
    )
    assert all("--warmUp=500 --duration=10" in line for line in lines.values())


def test_file_names_are_quoted() -> None:
    plan = planner.plan(BuildSpec(Path("my net; rm.onnx"), (), "fp32"), DIALECTS["trt8.6"], quantized=False)
    assert "'--onnx=my net; rm.onnx'" in command.text(command.build_command(plan, Path("e")))


@real
def test_dialect_is_read_off_the_help_text() -> None:
    found = dialects.from_help(HELP.read_text(), "10.16.1")
    assert found.options == DIALECTS["trt10.16"].options
    assert found.weakly_typed and found.weights == "int8" and found.has("IBuilderConfig.int8_calibrator")
    older = re.sub(
        r"^  --(stronglyTyped|profile|skipInference|builderOptimizationLevel).*\n", "", HELP.read_text(), flags=re.M
    )
    assert dialects.from_help(older, "8.5.2").weights == "float"
    newer = re.sub(r"^  --(fp16|int8|calib)[ =].*\n", "", HELP.read_text(), flags=re.M)
    assert not dialects.from_help(newer, "11.1.0").weakly_typed


class Program(Protocol):
    def __call__(self, log: str, *, code: int = 0, writes: bool = True) -> Path: ...


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program in trtexec's place that prints what a real one printed; the real one needs a GPU."""

    def make(log: str, *, code: int = 0, writes: bool = True) -> Path:
        path, shown = tmp_path / "bin" / "trtexec", tmp_path / "shown.log"
        path.parent.mkdir(exist_ok=True)
        shown.write_text(log)
        save = 'for a in "$@"; do case $a in --saveEngine=*) printf engine > "${a#--saveEngine=}";; esac; done'
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = --help ]; then cat "{HELP}"; exit 0; fi\necho "$@" > "{tmp_path}/arguments"\n'
            f'cat "{shown}"\n{save if writes else ":"}\nexit {code}\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(trtexec.PROGRAM_VARIABLE, str(path))
        trtexec._help_of.cache_clear()
        return path

    return make


@real
def test_build_by_a_program_that_replays_a_real_log(tmp_path: Path, program: Program) -> None:
    program(BUILD.read_text())
    path = network(tmp_path / "n.onnx", quantized="int8")
    engine = trtexec.build(BuildSpec(path, (), "qat", BuildOptions(level=2)), tmp_path / "n.plan")
    assert engine.version == trtexec.version() == "10.16.1"
    assert engine.plan.read_bytes() == b"engine"
    assert engine.build_s == 8.05109
    assert engine.layers is None
    assert any("not run on one yet" in note for note in engine.notes)
    assert "Engine built in" in (tmp_path / "n.plan.log").read_text()
    asked = (tmp_path / "arguments").read_text().split()
    assert {"--fp16", "--int8", "--skipInference", "--builderOptimizationLevel=2", f"--onnx={path}"} <= set(asked)


@real
@pytest.mark.parametrize(
    ("change", "code", "writes", "message"),
    [
        (
            ("&&&& PASSED", "[01/01/2026-00:00:00] [E] Error[9]: no tactic\n&&&& FAILED"),
            1,
            False,
            "cannot build it: Error",
        ),
        (("&&&& PASSED", "&&&& WAITING"), 0, True, "ended with 0 and does not say why"),
        (None, 127, False, "trtexec ended with 127"),
        (("", ""), 0, False, "wrote no engine"),
    ],
)
def test_only_an_engine_is_success(
    tmp_path: Path, program: Program, change: tuple[str, str] | None, code: int, writes: bool, message: str
) -> None:
    program("sh: not found" if change is None else BUILD.read_text().replace(*change), code=code, writes=writes)
    with pytest.raises(BuildError, match=message):
        trtexec.build(BuildSpec(network(tmp_path / "n.onnx"), (), "fp32"), tmp_path / "n.plan")
    assert not (tmp_path / "n.plan").exists()
    assert (tmp_path / "n.plan.failed.log").is_file()


@real
def test_it_takes_caches_and_no_images(tmp_path: Path, program: Program) -> None:
    program(BUILD.read_text())
    path = network(tmp_path / "n.onnx")
    (tmp_path / "b").mkdir()

    np.save(tmp_path / "b" / "0.npy", np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(ConfigError, match="takes a calibration cache and no images"):
        trtexec.build(BuildSpec(path, (), "ptq", calibration_batches=tmp_path / "b"), tmp_path / "n.plan")


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(trtexec.PROGRAM_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingBackendError, match=r"none is no file.*--dry-run"):
        trtexec.version()
    monkeypatch.delenv(trtexec.PROGRAM_VARIABLE)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr(doctor, "TRTEXEC_FOLDERS", ())
    with pytest.raises(MissingBackendError, match="not on PATH"):
        trtexec.version()


def test_a_program_that_is_no_trtexec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trtexec.PROGRAM_VARIABLE, "/bin/true")
    trtexec._help_of.cache_clear()
    with pytest.raises(MissingBackendError, match="does not run as trtexec"):
        trtexec.version()
