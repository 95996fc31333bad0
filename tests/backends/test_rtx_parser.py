"""What TensorRT-RTX's parser says of files, and what becomes of those that it dies of or takes too much for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import present, run_trtq
from tests.installed import needs_rtx
from trtq import backends
from trtq.backends import child, rtx_parser
from trtq.pipeline.checking import lint_file

pytestmark = needs_rtx
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def save(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], functions: int = 0) -> Path:
    """Save a network of x and y, and of that many functions, each of which calls the one before it twice."""
    own = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], OPSETS)]
    for index in range(1, functions):
        calls = [helper.make_node(f"f{index - 1}", [a], [b], domain="own") for a, b in (("a", "c"), ("c", "b"))]
        own.append(helper.make_function("own", f"f{index}", ["a"], ["b"], calls, OPSETS))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=OPSETS, functions=own if functions else [], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], [])


def only(path: Path) -> str:
    """Return the message of the one finding of TQ402, on the whole file."""
    (found,) = [one for one in lint_file(path).findings if one.code == "TQ402"]
    assert found.tensors == ("y",) and not found.fixable
    return found.message


def test_a_small_file_that_asks_for_much_memory_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 KiB, and 130,000 nodes: twice as many with each function more, so 30 of them would take terabytes.
    path = save(tmp_path / "many.onnx", [helper.make_node("f16", ["x"], ["y"], domain="own")], [], functions=17)
    monkeypatch.setattr(rtx_parser, "LEAST_MIB", 70)
    assert only(path) == (
        "TensorRT-RTX's parser needs more than the 70 MiB that a file of this size may take; no engine is built of it"
    )


@pytest.mark.parametrize(
    "script",
    [
        "import os; print('terminate called after throwing an instance of std::bad_alloc', flush=True); os.abort()",
        "import sys; sys.exit('cannot allocate memory for thread-local data: ABORT')",
    ],
)
def test_one_that_the_libraries_end_for_want_of_memory(script: str, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx_parser, "SCRIPT", script)
    assert "parser needs more than the" in only(net)


def test_what_is_free_is_the_most_that_it_may_take(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:     102400 kB\n")
    monkeypatch.setattr(child, "MEMORY_INFO", tmp_path / "meminfo")
    weights = numpy_helper.from_array(np.zeros((4, 5_000_000), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("ReduceMax", ["z"], ["y"], keepdims=1)]
    assert "needs more than the 90 MiB" in only(save(tmp_path / "large.onnx", nodes, [weights]))
    assert backends.ask("rtx", net)() == ()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int8])
def test_weights_stay_far_below_the_limit(kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of what a byte may take, and next to nothing besides.
    monkeypatch.setattr(rtx_parser, "LEAST_MIB", 64)
    monkeypatch.setattr(rtx_parser, "GROWTH", 12)
    weights = numpy_helper.from_array(np.ones((4, 4_000_000), kind), "w")
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "v"], ["z"]),
        helper.make_node("ReduceMax", ["z"], ["y"], keepdims=1),
    ]
    assert backends.ask("rtx", save(tmp_path / "weights.onnx", nodes, [weights]))() == ()


def test_many_nodes_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The shortest nodes take the most for their bytes.
    monkeypatch.setattr(rtx_parser, "LEAST_MIB", 64)
    nodes = [helper.make_node("Relu", ["x"], [f"y{index}"]) for index in range(10_000)]
    nodes.append(helper.make_node("Relu", ["y0"], ["y"]))
    assert backends.ask("rtx", save(tmp_path / "wide.onnx", nodes, []))() == ()


def test_weights_in_a_file_of_their_own_count(net: Path, tmp_path: Path) -> None:
    asked = backends.ask("rtx", net, 2**30)
    alone = backends.ask("rtx", net)
    assert isinstance(asked, rtx_parser.Asked) and isinstance(alone, rtx_parser.Asked)
    free_mib = int(child.FREE_MEMORY_SHARE * present(child.free_mib()))
    assert alone.limit_mib == min(rtx_parser.LEAST_MIB, free_mib) or alone.limit_mib < rtx_parser.LEAST_MIB
    assert asked.limit_mib > alone.limit_mib
    assert asked() == alone() == ()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import os; os.abort()", "died of this file (SIGABRT)"),
        ("import os; print('it hurts', flush=True); os.kill(os.getpid(), 11)", "died of this file (SIGSEGV): it hurts"),
        ("raise OSError('no library')", "died of this file (exit code 1): OSError: no library"),
        ("import bytes_of_nothing", "ModuleNotFoundError: No module named 'bytes_of_nothing'"),
    ],
)
def test_a_parser_that_dies_is_said_plainly(script: str, says: str, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx_parser, "SCRIPT", script)
    message = only(net)
    assert message.startswith("TensorRT-RTX's parser died of this file (") and says in message
    assert message.endswith("; no engine is built of it")


def test_one_that_hangs_is_stopped(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx_parser, "SCRIPT", "import time; time.sleep(60)")
    monkeypatch.setattr(rtx_parser, "LEAST_S", 0.3)
    monkeypatch.setattr(rtx_parser, "S_PER_MIB", 0.0)
    assert "parser took longer than 0.3 s for this file and was stopped" in only(net)


def test_the_command_line_prints_it_and_fails(tmp_path: Path) -> None:
    done = run_trtq("lint", save(tmp_path / "none.onnx", [helper.make_node("Hardmax", ["x"], ["y"])], []), "--json")
    assert done.returncode == 1 and "does not take Hardmax" in done.stdout
