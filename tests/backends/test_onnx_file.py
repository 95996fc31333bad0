"""An ONNX file is read and checked once, and again as soon as it may be another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from tests.conftest import ROOT
from tests.installed import needs_rtx
from trtq import files
from trtq.backends import BuildSpec, building, dialects, onnx_file
from trtq.errors import ModelError
from trtq.pipeline.from_onnx import Request, build_onnx

NETWORK = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
OTHER = NETWORK.replace("Relu", "Tanh")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(parser.parse_model(NETWORK), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def checked(path: Path) -> onnx_file.Checked:
    return onnx_file.checked(onnx_file.read(path))


def write_in_place(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(parser.parse_model(OTHER).SerializeToString())
    # Even where a copy keeps the time: the kernel's own time of the change cannot be set.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    files.write_bytes(path, parser.parse_model(OTHER).SerializeToString())


@pytest.mark.parametrize("change", [write_in_place, replace, lambda path: path.unlink()])
def test_what_is_known_holds_until_the_file_changes(net: Path, change: Callable[[Path], None]) -> None:
    known = checked(net)
    assert known.sha256 == files.sha256(net)
    assert known.holds(net) and not known.holds(net.parent)
    change(net)
    assert not known.holds(net)


def test_what_is_known_holds_until_its_weights_change(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [weights],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    known = checked(path)
    assert known.weights == (tmp_path / "net.data",) and known.holds(path)
    (tmp_path / "net.data").write_bytes(bytes(64))
    assert not known.holds(path)


def test_a_file_that_changed_since_it_was_checked_is_checked_again(net: Path) -> None:
    spec = BuildSpec(net, known=checked(net))
    net.write_bytes(b"no network any more")
    with pytest.raises(ModelError, match="not an ONNX file"):
        building.plan_for(spec, dialects.DIALECTS["rtx"])


def test_weights_of_a_branch_are_found_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool c) => (float[2] y)
    { y = If (c) <then_branch = a () => (float[2] t) { t = Constant <value = float[2] {1, 2}> () },
                  else_branch = b () => (float[2] e) { e = Constant <value = float[2] {3, 4}> () }> }"""
    model = parser.parse_model(text)
    tensor = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": "branch.data", "offset": "0", "length": "8"}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "branch.data").write_bytes(bytes(8))
    with pytest.raises(ModelError, match=r"branch\.data"):
        onnx_file.check(tmp_path / "net.onnx")
    (tmp_path / "branch.data").write_bytes(bytes(8))
    onnx_file.check(tmp_path / "net.onnx")


@needs_rtx
def test_a_build_reads_and_checks_its_file_once(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    checks: list[object] = []
    check = onnx.checker.check_model

    def counted(model: bytes) -> None:
        checks.append(model)
        check(model)

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event == "open" and given[0] == str(net):
            opened.append(str(net))

    monkeypatch.setattr(onnx.checker, "check_model", counted)
    sys.addaudithook(hook)
    (facts,) = build_onnx(Request(net, tmp_path / "out", "rtx")).engines
    assert facts["built"] is True
    assert len(opened) == 1
    opened.clear()
    (again,) = build_onnx(Request(net, tmp_path / "out", "rtx")).engines
    assert again["built"] is False and len(opened) == 1
    assert checks == [net.read_bytes()]


@needs_rtx
@pytest.mark.parametrize(
    ("module", "without"),
    [("trtq.backends.rtx_worker", {"numpy", "onnx", "onnx_ir", "cuda"}), ("trtq.backends.rtx", {"cuda", "pycuda"})],
)
def test_what_builds_loads_nothing_that_it_does_not_need(module: str, without: set[str]) -> None:
    code = f"import sys, {module}; loaded = {without!r} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
