"""Gates on signals, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from tests.compare.branches_onnx import branches
from trtq.cli import app
from trtq.compare import assert_fused, gates, subject
from trtq.errors import ConfigError, ModelError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A network whose branches have scales of their own, and the same with one scale."""
    for name, unified in (("naive", False), ("unified", True)):
        onnx.save(branches(unified=unified, consumers=True), tmp_path / f"{name}.onnx")
    return {name: tmp_path / f"{name}.onnx" for name in ("naive", "unified")}


def test_an_engine_with_leftover_conversions_fails_the_test_and_says_how_many(files: dict[str, Path]) -> None:
    found = subject(files["naive"]).signals.conversions
    assert found is not None and found > 1
    with pytest.raises(AssertionError, match=rf"conversions is {found} \(predicted\), fails on conversions>1"):
        assert_fused(files["naive"])
    assert_fused(files["unified"], "conversions>1,int8_share<0.5")


@pytest.mark.parametrize(
    ("text", "value", "fails"),
    [
        ("conversions>2", 2, False), ("conversions>=2", 2, True), ("conversions==2", 2, True),
        ("conversions != 2", 2, False), ("conversions<2.5", 2, True), ("conversions<=1e0", 2, False),
    ],
)  # fmt: skip
def test_every_comparison(text: str, value: int, fails: bool, files: dict[str, Path]) -> None:
    import dataclasses

    graph = subject(files["unified"])
    graph = dataclasses.replace(graph, signals=dataclasses.replace(graph.signals, conversions=value))
    assert bool(gates.failures(graph, "b", gates.parse(text))) is fails


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conversion>0", "there is no signal 'conversion'; did you mean 'conversions'?"),
        ("conversions", "is no condition; write one as in"),
        ("conversions>", "is no condition"),
        ("conversions>--1", "'--1' is not a number"),
        ("", "is no condition"),
    ],
)
def test_what_is_no_gate_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        gates.parse(text)
    assert message in str(error.value)


def test_a_signal_that_the_origin_lacks_is_refused_not_passed(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="has no signal 'double_writes' \\(predicted\\)"):
        assert_fused(files["unified"], "double_writes>0")


def test_the_command_fails_on_b_alone(files: dict[str, Path]) -> None:
    def run(a: str, b: str, *options: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["diff", str(files[a]), str(files[b]), *options])
        return done.exit_code, done.stdout

    gate = ("--fail-on", "conversions>1")
    assert run("naive", "unified", *gate)[0] == 0
    code, output = run("unified", "naive", *gate, "--json")
    assert code == 1
    document = json.loads(output)
    assert len(document["failed"]) == 1 and document["differences"]


def test_one_file_compares_with_itself_in_two_modes(files: dict[str, Path]) -> None:
    done = CliRunner().invoke(app, ["diff", *[str(files["naive"])] * 2, "--mode", "ptq,qat", "--json"])
    document = json.loads(done.stdout)
    assert (document["a"], document["b"]) == ("naive.onnx ptq", "naive.onnx qat")
    assert {one["class"] for one in document["differences"]} >= {"extra conversion"}
    assert isinstance(
        CliRunner().invoke(app, ["diff", *[str(files["naive"])] * 2, "--mode", "ptq"]).exception, ConfigError
    )


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("no network")
    with pytest.raises(ModelError):
        assert_fused(tmp_path / "x.onnx")
