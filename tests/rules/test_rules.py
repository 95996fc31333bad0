from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import compose, numpy_helper

from tests.ir_values import producer, stored
from trtq import rules
from trtq.errors import ConfigError
from trtq.qdq import reading
from trtq.rules import RULES, Context, Finding, Rule

try:
    import onnxruntime
except ModuleNotFoundError:  # the core install: the rules are tested, running what they mend is not
    onnxruntime = None

PRODUCERS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "producers"
# What a rule has to know besides the file before it can find anything.
KNOWN = {
    "TQ313": Context(target="trt10"),
    "TQ401": Context(target="trt8.6"),
    "TQ402": Context(
        refusals=lambda model: [
            (reading.name(node.outputs[0]), "no") for node in model.graph if node.op_type == "Hardmax"
        ]
    ),
    "TQ404": Context(target="rtx", sm="sm75"),
}
PAGE_SECTIONS = ["What it does", "Why it matters", "Fix", "Fix safety"]


def parsed(text: str) -> ir.Model:
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(named(proto))


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Name the nodes of an example after what they write: ONNX text need not, and TQ901 wants it."""
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    return proto


def runs(model: ir.Model, finite: bool = True) -> None:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    if onnxruntime is None:
        return
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {one.name: np.ones(one.shape, np.float32) for one in session.get_inputs()}
    assert not finite or all(np.isfinite(output).all() for output in session.run(None, feeds))


def content(model: ir.Model) -> bytes:
    serialized: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return serialized


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_holds_on_its_own_examples(rule: Rule) -> None:
    good, bad, context = parsed(rule.good), parsed(rule.bad), KNOWN.get(rule.code, Context())
    assert rules.lint(good) == () == rules.lint(good, context=context)
    runs(good)
    found = rules.lint(bad, context=context)
    assert [finding.code for finding in found] == [rule.code]
    assert found[0].name == rule.name
    known = {value.name for node in bad.graph for value in (*node.inputs, *node.outputs) if value is not None}
    assert found[0].tensors and {*found[0].tensors, *found[0].removes} <= known
    assert all(f"'{name}'" in found[0].message for name in found[0].tensors)

    before = content(bad)
    assert rules.fix(bad, found, context=context) == int(found[0].fixable)
    if not found[0].fixable:
        assert content(bad) == before
        return
    assert rules.lint(bad, context=context) == ()
    runs(bad)
    fixed = content(bad)
    assert rules.fix(bad, found, context=context) == 0 or rule.fix is None
    assert content(bad) == fixed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_is_written_the_way_all_are(rule: Rule) -> None:
    assert re.fullmatch(r"TQ\d{3}", rule.code) and re.fullmatch(r"[a-z0-9-]+", rule.name)
    assert rule.page.startswith(f"{rule.code} {rule.name}: ")
    assert re.findall(r"^## (.+)$", rule.page, re.MULTILINE) == PAGE_SECTIONS
    assert "Sources: " in rule.page
    assert rule.targets


def test_codes_and_names_are_unique_and_in_order() -> None:
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_all_that_can_be_mended_is_mended_together() -> None:
    model = ir.from_proto(all_examples())
    found = rules.lint(model)
    assert {finding.code for finding in found} == {rule.code for rule in RULES} - {*KNOWN}
    unfixable = {finding.code for finding in found if not finding.fixable}
    assert rules.mend(model) > len(RULES) / 2
    left = rules.lint(model)
    assert {finding.code for finding in left} == unfixable and not any(finding.fixable for finding in left)
    runs(model, finite=False)
    assert rules.mend(model) == 0


def all_examples() -> onnx.ModelProto:
    """Every rule's BAD example in one graph of the newest opset among them."""
    protos = [compose.add_prefix(named(onnx.parser.parse_model(rule.bad)), f"{rule.code}/") for rule in RULES]
    merged = protos[0]
    for other in protos[1:]:
        for field in ("node", "initializer", "input", "output"):
            getattr(merged.graph, field).extend(getattr(other.graph, field))
        merged.functions.extend(other.functions)
        merged.ir_version = max(merged.ir_version, other.ir_version)
    opsets: dict[str, int] = {}
    for one in (one for proto in protos for one in proto.opset_import):
        opsets[one.domain] = max(one.version, opsets.get(one.domain, 0))
    del merged.opset_import[:]
    merged.opset_import.extend(onnx.helper.make_opsetid(*one) for one in opsets.items())
    return merged


def test_select_and_ignore() -> None:
    model = ir.from_proto(all_examples())
    everything = rules.lint(model)
    assert {finding.code for finding in rules.lint(model, select=["TQ102", "TQ301"])} == {"TQ102", "TQ301"}
    left = rules.lint(model, ignore=["TQ101"])
    assert left == tuple(finding for finding in everything if finding.code != "TQ101")
    assert rules.lint(model, select=["TQ101"], ignore=["TQ101"]) == ()


@pytest.mark.parametrize(
    "lint",
    [lambda model, code: rules.lint(model, select=[code]), lambda model, code: rules.lint(model, ignore=[code])],
    ids=["select", "ignore"],
)
def test_an_unknown_code_is_answered_with_the_closest_one(lint: Callable[[ir.Model, str], object]) -> None:
    with pytest.raises(ConfigError, match="no rule 'TQ1011'; did you mean 'TQ101'"):
        lint(parsed(RULES[0].good), "TQ1011")
    with pytest.raises(ConfigError, match="no rule 'scale'; known rules are TQ101, TQ102"):
        lint(parsed(RULES[0].good), "scale")


def test_fix_touches_only_what_it_is_given() -> None:
    model = ir.from_proto(all_examples())
    found = rules.lint(model)
    assert rules.fix(model, [finding for finding in found if finding.code == "TQ102"]) == 1
    assert {finding.code for finding in rules.lint(model)} == {rule.code for rule in RULES} - {"TQ102", *KNOWN}


def test_a_finding_is_json_with_the_fixed_keys() -> None:
    finding = rules.lint(parsed(RULES[0].bad))[0].to_json()
    assert list(finding) == ["code", "name", "tensors", "removes", "message", "safety", "fixable"]
    assert json.loads(json.dumps(finding)) == finding


def producers() -> list[Path]:
    files = sorted(PRODUCERS.glob("fork-*.onnx"))
    if not files:
        pytest.skip("no producers' files: the shared data is absent")
    return files


def test_nonzero_zero_points_are_found_in_exactly_the_files_that_have_them() -> None:
    found = {file.stem for file in producers() if rules.lint(ir.load(file), select=["TQ301"])}
    assert found == {"fork-ort-default", "fork-ort-uint8-percentile", "fork-pt2e-x86"}


def test_no_producer_writes_a_bad_scale() -> None:
    assert not [file.stem for file in producers() if rules.lint(ir.load(file), select=["TQ304"])]


def test_producers_files_are_valid_and_have_nothing_left_to_mend_after_mending() -> None:
    mended: dict[str, int] = {}
    for file in producers():
        model = ir.load(file)
        mended[file.stem] = rules.mend(model)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        if onnxruntime is not None:
            onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        assert not [finding for finding in rules.lint(model) if finding.fixable], file.stem
    assert {name for name, count in mended.items() if not count} == {"fork-float"}
    assert {name for name, count in mended.items() if count} >= {"fork-ort-default", "fork-pt2e-x86"}


RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
<float s = {{0.1}}, float t = {{0.2}}, float w_s = {{0.01}}, int8 zero = {{0}}, int8[2,2,1,1] w_q = {{1, 2, 3, 4}}>
{{
    x_q = QuantizeLinear (x, s, zero)
    x_dq = DequantizeLinear (x_q, s, zero)
    w = DequantizeLinear (w_q, w_s, zero)
    branch = Conv (x_dq, w)
    {body}
    y_q = QuantizeLinear (out, t, zero)
    y_dq = DequantizeLinear (y_q, t, zero)
    y = Conv (y_dq, w)
    z = Sigmoid (x)
}}
"""


def residual(body: str) -> list[Finding]:
    return [finding for finding in rules.lint(parsed(RESIDUAL.format(body=body))) if finding.code == "TQ201"]


@pytest.mark.parametrize(
    "body",
    [
        "out = Add (branch, x)",
        "out = Add (x, branch)",
        "r = Relu (branch)  sum = Add (x, r)  out = Relu (sum)",
        "g = Sigmoid (branch)  silu = Mul (branch, g)  out = Add (x, silu)",
        "sum = Add (branch, x)  g = Sigmoid (sum)  out = Mul (sum, g)",
        "sum = Add (branch, x)  out = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (sum)",
    ],
)
def test_a_float_residual_with_a_scale_elsewhere_is_mended(body: str) -> None:
    (finding,) = residual(body)
    assert finding.tensors == ("x",) and finding.removes == ("y_q",) and finding.fixable
    model = parsed(RESIDUAL.format(body=body))
    assert rules.fix(model, [finding]) == 1
    assert rules.lint(model) == ()
    runs(model)
    add = next(node for node in model.graph if node.op_type == "Add")
    pair = producer(
        next(value for value in add.inputs if value and value.producer() and "residual" in reading.name(value))
    )
    assert pair.op_type == "DequantizeLinear" and float(stored(pair.inputs[1])) == float(np.float32(0.1))


@pytest.mark.parametrize(
    "body",
    [
        "out = Identity (branch)",
        "bias = Constant <value = float {0.5}> ()  out = Add (branch, bias)",
        "out = Add (branch, x_dq)",
        "twice = Sigmoid (branch)  other = Add (twice, branch)  out = Add (branch, other)",
        "float_branch = Conv (x, w)  out = Add (float_branch, x)",
        "small = GlobalAveragePool (x)  out = Add (branch, small)",
    ],
)
def test_other_sums_are_left_alone(body: str) -> None:
    assert residual(body) == []


def test_a_sum_that_nothing_quantizes_is_left_alone() -> None:
    assert residual("sum = Add (branch, x)  out = Softmax (sum)") == []


def test_a_sum_that_only_an_average_pool_reads_in_float_is_quantized_once_the_pool_is() -> None:
    body = "sum = Add (branch, x)  out = AveragePool <kernel_shape = [1, 1]> (sum)"
    assert [finding.tensors for finding in residual(body)] == [("x",)]


def test_a_residual_without_any_scale_is_found_and_waits_for_calibration() -> None:
    (finding,) = residual("shortcut = Sigmoid (x)  out = Add (branch, shortcut)")
    assert finding.tensors == ("shortcut",) and not finding.fixable
    assert "calibrate" in finding.message


def test_between_two_convolutions_the_second_is_the_residual() -> None:
    (finding,) = residual("shortcut = Conv (x_dq, w)  out = Add (branch, shortcut)")
    assert finding.tensors == ("shortcut",) and not finding.fixable


def test_a_residual_pair_takes_its_constants_from_behind_the_sum() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1,2,4,4] x, float[1,2,4,4] v) => (float[1,2,4,4] y, float[1,2,4,4] z)
    <float s = {0.1}, int8 zero = {0}, int8[2,2,1,1] w_q = {1, 2, 3, 4}>
    {
        v_q = QuantizeLinear (v, s, zero)
        v_dq = DequantizeLinear (v_q, s, zero)
        w = DequantizeLinear (w_q, s, zero)
        branch = Conv (v_dq, w)
        sum = Add (branch, x)
        y_q = QuantizeLinear (sum, s, zero)
        y_dq = DequantizeLinear (y_q, s, zero)
        y = Conv (y_dq, w)
        late = Constant <value = float {0.3}> ()
        late_zero = Constant <value = int8 {0}> ()
        x_q = QuantizeLinear (x, late, late_zero)
        z = DequantizeLinear (x_q, late, late_zero)
    }
    """
    model = parsed(text)
    assert rules.fix(model, rules.lint(model)) == 1
    assert rules.lint(model) == ()
    runs(model)


def test_one_group_is_one_finding_of_one_rule() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1,2,4,4] x) => (float[1,4,4,4] a, float[1,2,4,4] b, float[1,2,4,4] c, float[1,2,4,4] d)
    <float s = {0.1}, float t = {0.2}, float u = {0.3}, int8 zero = {0}>
    {
        pooled = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
        joined = Concat <axis = 1> (x, pooled)
        a_q = QuantizeLinear (joined, s, zero)
        a = DequantizeLinear (a_q, s, zero)
        b_q = QuantizeLinear (pooled, t, zero)
        b = DequantizeLinear (b_q, t, zero)
        c_q = QuantizeLinear (x, u, zero)
        c = DequantizeLinear (c_q, u, zero)
        d_q = QuantizeLinear (x, s, zero)
        d = DequantizeLinear (d_q, s, zero)
    }
    """
    (finding,) = rules.lint(parsed(text))
    assert finding.code == "TQ101"
    assert finding.tensors == ("joined", "pooled", "x")
    assert finding.removes == ("a_q", "b_q", "d_q")
    assert "3 scales (0.1 to 0.3)" in finding.message and "1.58 bits coarser" in finding.message


BAD_SCALE = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[2,2,1,1] other)
<float x_scale = {0.1}, int8 x_zero = {0}, float[2] s = {0.5, 0.25}, int8[2] zero = {0, 0},
 int8[2,2,1,1] w_q = {5, 6, 0, 0}, int8[2,2,1,1] v_q = {1, 2, 3, 4}>
{
    x_q = QuantizeLinear (x, x_scale, x_zero)
    x_dq = DequantizeLinear (x_q, x_scale, x_zero)
    w = DequantizeLinear <axis = 0> (w_q, s, zero)
    y = Conv (x_dq, w)
    other = DequantizeLinear <axis = 0> (v_q, s, zero)
}
"""


def with_scales(first: float, second: float, shared: bool) -> ir.Model:
    proto = onnx.parser.parse_model(BAD_SCALE)
    for one in proto.graph.initializer:
        if one.name == "s":
            one.CopyFrom(numpy_helper.from_array(np.array([first, second], np.float32), "s"))
    if not shared:
        proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1], np.float32), "v_s"))
        proto.graph.node[4].input[1] = "v_s"
    return ir.from_proto(named(proto))


@pytest.mark.parametrize(
    ("scale", "word"),
    [(0.0, "zero"), (-1.0, "negative"), (np.nan, "not a number"), (np.inf, "infinite"), (1e-40, "denormal")],
)
def test_each_kind_of_bad_scale_is_named_and_mended_in_dead_channels_alone(scale: float, word: str) -> None:
    dead = with_scales(0.5, scale, shared=False)
    (finding,) = rules.lint(dead)
    assert finding.tensors == ("w_q",) and finding.fixable and finding.safety == "lossless"
    assert f"1 of 2 channels (1) is {word}" in finding.message
    assert rules.fix(dead, [finding]) == 1 and rules.lint(dead) == ()
    (node,) = [node for node in dead.graph if node.outputs[0].name == "w"]
    assert stored(node.inputs[1]).tolist() == [0.5, 1.0]

    alive = with_scales(scale, 0.5, shared=False)
    (finding,) = rules.lint(alive)
    assert not finding.fixable and finding.safety == "needs review" and "calibrate" in finding.message
    before = content(alive)
    assert rules.fix(alive, [finding]) == 0 and content(alive) == before


def test_a_shared_bad_scale_is_mended_only_where_the_channel_is_dead() -> None:
    model = with_scales(0.5, 0.0, shared=True)
    assert [(finding.tensors[0], finding.fixable) for finding in rules.lint(model)] == [("w_q", True), ("v_q", False)]
    assert rules.fix(model, rules.lint(model)) == 1
    (left,) = rules.lint(model)
    assert left.tensors == ("v_q",)
    assert stored(model.graph.initializers["s"]).tolist() == [0.5, 0.0]


def test_a_bad_scale_of_an_activation_is_never_invented() -> None:
    model = parsed(RULES[0].good)
    scale = model.graph.initializers["joint_scale"]
    scale.const_value = ir.tensor(np.array(0, np.float32), name="joint_scale")
    found = rules.lint(model)
    assert [(finding.code, finding.tensors, finding.fixable) for finding in found] == [
        ("TQ304", ("joined",), False),
        ("TQ304", ("left",), False),
    ]
