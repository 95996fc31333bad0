"""The rules on what a target refuses, against the target itself where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from tests.installed import needs_rtx
from tests.rules.rule_graphs import found, graph, mend, operators, run
from trtq import backends, qdq, rules
from trtq.backends import BuildSpec, rtx
from trtq.errors import BuildError
from trtq.pipeline.checking import lint_file
from trtq.rules import Context

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx"
PAIR = "network (float[4,4] x) => (float[4,4] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"


def data(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"no {name}: the shared data is absent")
    return DATA / name


@pytest.mark.parametrize(
    ("target", "opset", "reported"),
    [
        ("trt8.5", 17, False),
        ("trt8.5", 18, True),
        ("trt8.6", 19, True),
        ("trt10", 20, False),
        ("trt10", 21, True),
        ("trt11", 23, False),
        ("rtx", 23, False),
        (None, 23, False),
    ],
)
def test_an_opset_is_too_new_for_its_target_alone(target: str | None, opset: int, reported: bool) -> None:
    model = graph(PAIR, opset, s=np.float32(0.1), z=np.int8(0))
    assert bool(found(model, "TQ401", Context(target=target))) == reported


def test_a_file_that_needs_no_new_operator_is_labelled_with_an_older_opset() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,2,2] y)
    { q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  c = Conv (d, w)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)  a = Sigmoid (p)  y = Mul (p, a) }"""
    constants: dict[str, npt.ArrayLike] = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w": np.ones((2, 2, 1, 1), np.float32),
    }
    model = graph(text, 22, **constants)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    before = run(model, x=x)
    mend(model, "TQ401", Context(target="trt8.5"))
    assert model.opset_imports[""] == 17
    assert np.array_equal(run(model, x=x)[0], before[0])


@pytest.mark.parametrize(
    "body",
    [
        "axes = Constant <value_ints = [1]> ()  y = ReduceMean (x, axes)",
        "y = Gelu (x)",
        "y = AveragePool <kernel_shape = [1, 1], dilations = [1, 1]> (x)",
        "h = Cast <to = 10> (x) q = QuantizeLinear (h, half, z) r = DequantizeLinear (q, half, z) y = Cast <to=1> (r)",
    ],
)
def test_a_file_with_a_new_operator_has_to_be_exported_again(body: str) -> None:
    text = f"network (float[1,1,4,4] x) => (float[1,1,4,4] y) {{ {body} }}"
    used: dict[str, npt.ArrayLike] = {"half": np.float16(0.25), "z": np.int8(0)} if "half" in body else {}
    model = graph(text, 20, **used)
    [finding] = found(model, "TQ401", Context(target="trt8.6"))
    assert not finding.fixable and "export it again with opset 17" in finding.message
    assert rules.fix(model, [finding], context=Context(target="trt8.6")) == 0 and model.opset_imports[""] == 20


def test_integer_operators_are_one_finding_a_type() -> None:
    text = """network (uint8[4,4] x) => (int32[4,4] y, int32[4,4] z, float[4,4] f)
    { y = MatMulInteger (x, w)  z = MatMulInteger (x, w)  f = QLinearFoo (x) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.int8), "w"))
    assert [finding.tensors for finding in found(ir.from_proto(proto), "TQ403")] == [("y", "z"), ("f",)]


def test_what_sm75_does_not_do_is_said_of_sm75_alone() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  v = DequantizeLinear (w, s, z)  c = Conv (d, v)
      h = Cast <to = 10> (c)  m = MatMul (h, half)  b = Cast <to = 1> (m)  y = MatMul (b, full) }"""
    model = graph(
        text,
        s=np.float32(0.1),
        z=np.int8(0),
        w=np.ones((2, 2, 1, 1), np.int8),
        half=np.eye(4, dtype=np.float16),
        full=np.eye(4, dtype=np.float32),
    )
    turing = [finding.tensors for finding in found(model, "TQ404", Context(target="rtx", sm="sm75"))]
    assert turing == [("y",), ("c",)]
    assert found(model, "TQ404", Context(target="rtx", sm="sm86")) == found(model, "TQ404") == []


@pytest.mark.parametrize(("count", "reported"), [(2500, False), (2501, True)])
def test_a_chain_is_too_deep_from_2501_operators_on(count: int, reported: bool) -> None:
    body = "  ".join(f"x{i + 1} = Relu (x{i})" for i in range(count))
    model = graph(f"network (float[1] x0) => (float[1] x{count}) {{ {body} }}")
    assert [finding.tensors for finding in found(model, "TQ405")] == ([(f"x{count}",)] if reported else [])


def test_many_operators_side_by_side_are_not_deep() -> None:
    body = "  ".join(f"y{i} = Relu (x)" for i in range(3000))
    outputs = ", ".join(f"float[1] y{i}" for i in range(3000))
    assert found(graph(f"network (float[1] x) => ({outputs}) {{ {body} }}"), "TQ405") == []


def test_the_chain_that_overflows_the_builder_is_found() -> None:
    [finding] = found(qdq.load(data("deep3000.onnx")), "TQ405")
    assert "3000 operators" in finding.message


@needs_rtx
def test_the_file_that_kills_the_builder_builds_after_the_fix(tmp_path: Path) -> None:
    source, target = data("crash_weight_scale_cast.onnx"), tmp_path / "fixed.onnx"
    with pytest.raises(BuildError, match="crashed"):
        rtx.build(BuildSpec(source), tmp_path / "engine.plan")
    model = qdq.load(source)
    [finding] = found(model, "TQ309")
    assert finding.tensors == ("c_5",) and rules.fix(model, [finding]) == 1
    assert [finding.code for finding in rules.lint(model)] == []
    qdq.save(model, target)
    engine = rtx.build(BuildSpec(target), tmp_path / "engine.plan")
    assert engine.layers is not None
    [convolution] = [layer for layer in engine.layers.layers if layer.kind == "correlation"]
    assert any(tensor.dtype == "int8" for tensor in convolution.inputs)


@needs_rtx
def test_the_parser_tells_what_it_refuses_and_why(tmp_path: Path) -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
    { levels, s, z0 = DynamicQuantizeLinear (x)  y = DequantizeLinear (levels, s, z0)  z = Relu (x) }"""
    path = tmp_path / "refused.onnx"
    qdq.save(graph(text), path)
    refused = backends.ask("rtx", path)()
    assert refused == (("levels", "TensorRT-RTX does not take DynamicQuantizeLinear"),)
    model = qdq.load(path)
    [finding] = found(model, "TQ402", Context(refusals=lambda _: refused))
    assert finding.tensors == ("levels",) and not finding.fixable
    qdq.save(graph("network (float[1] x) => (float[1] y) { y = Relu (x) }"), path)
    assert backends.ask("rtx", path)() == ()


def test_without_a_parser_nothing_is_refused() -> None:
    model = graph("network (float[1,4] x) => (float[1,4] y) { y = Hardmax (x) }")
    assert found(model, "TQ402") == [] and operators(model) == ["Hardmax"]


@needs_rtx
def test_a_file_is_asked_about_while_it_is_linted_and_again_when_mended(tmp_path: Path) -> None:
    path, mended = tmp_path / "refused.onnx", tmp_path / "mended.onnx"
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
    { q = QuantizeLinear (x, s, zero)  y = DequantizeLinear (q, s, zero)
      levels, t, z0 = DynamicQuantizeLinear (x)  z = DequantizeLinear (levels, t, z0) }"""
    qdq.save(graph(text, s=np.float32(0.1), zero=np.uint8(128)), path)
    linted = lint_file(path, mended)
    assert "TQ402" in [one.code for one in linted.findings] and linted.mended
    (refused,) = [one for one in linted.remaining if one.code == "TQ402"]
    assert refused.tensors == ("levels",) and "DynamicQuantizeLinear" in refused.message
    assert "TQ402" not in [one.code for one in lint_file(path, target="trt10").findings]
    assert "TQ402" not in [one.code for one in lint_file(path, ignore=("TQ402",)).findings]
