"""The rules that may need a range which the file does not hold: TQ201, TQ206, TQ208, TQ209, and TQ213 beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.conftest import present
from tests.ir_values import producer
from tests.rules.test_rules import content, parsed, runs
from trtq import backends, qdq, rules
from trtq.layers.graph import LayerGraph
from trtq.predict import predict
from trtq.rules import Context, Finding
from trtq.rules.finding import NOTHING_KNOWN

HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,4,16,16] x) => ({outputs})
<float s = {{0.1}}, float t = {{0.2}}, float u = {{0.3}}, float w_s = {{0.01}}, int8 zero = {{0}},
 int8[4,4,1,1] w_q = {{1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8}},
 int8[4,4,1,1] k_q = {{8, 7, 6, 5, 4, 3, 2, 1, -8, -7, -6, -5, -4, -3, -2, -1}},
 int8[4,8,1,1] v_q = {{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}},
 float[4] sizes = {{1, 1, 2, 2}}>
{{
    x_q = QuantizeLinear (x, s, zero)
    x_dq = DequantizeLinear (x_q, s, zero)
    {body}
}}
"""


def network(body: str, *outputs: str) -> ir.Model:
    """A text in which `a -> b @ s` is short for a Q/DQ pair, and the int8 weights w, k and v are at hand."""
    lines = [f"{name} = DequantizeLinear ({name}_q, w_s, zero)" for name in "wkv" if f", {name})" in body]
    for line in map(str.strip, body.strip().splitlines()):
        if " -> " in line:
            source, _, rest = line.partition(" -> ")
            target, _, scale = rest.partition(" @ ")
            lines.append(f"{target}_q = QuantizeLinear ({source}, {scale}, zero)")
            lines.append(f"{target} = DequantizeLinear ({target}_q, {scale}, zero)")
        else:
            lines.append(line)
    shown = ", ".join(f"float[n{i},c{i},h{i},w{i}] {name}" for i, name in enumerate(outputs))
    return parsed(HEAD.format(body="\n    ".join(lines), outputs=shown))


POOL = "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"


def found(model: ir.Model, *codes: str, context: Context = NOTHING_KNOWN) -> list[Finding]:
    return [one for one in rules.lint(model, context=context) if one.code in codes]


def ranges(**known: float) -> Context:
    return Context(ranges=lambda model, tensors: {tensor: known[tensor] for tensor in tensors})


def scales(model: ir.Model) -> dict[str, float]:
    quantizers = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    return {qdq.reading.name(node.inputs[0]): present(qdq.reading.scalar_scale(node)) for node in quantizers}


def conversions(model: ir.Model) -> int:
    return present(predict(model).signals.conversions)


def compiled(model: ir.Model, folder: Path) -> LayerGraph:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    qdq.save(model, folder / "model.onnx")
    layers = backends.builder("rtx").build(backends.BuildSpec(folder / "model.onnx"), folder / "model.plan").layers
    assert layers is not None
    return layers


def reads(layers: LayerGraph, kind: str) -> list[str]:
    return sorted(layer.inputs[0].dtype for layer in layers.layers if layer.kind == kind)


RESIDUAL = """
    c = Conv (x_dq, w)
    shortcut = Sigmoid (c)
    d = Conv (x_dq, w)
    sum = Add (d, shortcut)
    sum -> sum_dq @ t
    y = Conv (sum_dq, w)
"""


def test_a_residual_without_a_scale_takes_the_calibrated_one() -> None:
    asked: list[Sequence[str]] = []

    def collect(model: ir.Model, tensors: Sequence[str]) -> Mapping[str, float]:
        asked.append(tensors)
        return dict.fromkeys(tensors, 2.54)

    model = network(RESIDUAL, "y")
    before = content(model)
    (open_finding,) = found(model, "TQ201")
    assert not open_finding.fixable and "--calibration" in open_finding.message
    assert rules.fix(model, [open_finding]) == 0 and content(model) == before

    context = Context(ranges=collect)
    (finding,) = found(model, "TQ201", context=context)
    assert finding.fixable and finding.removes == open_finding.removes == ("sum_dq_q",) and "2.54" in finding.message
    assert rules.fix(model, [finding], context=context) == 1
    assert scales(model)["shortcut"] == pytest.approx(0.02)
    assert found(model, "TQ201") == [] and set(map(tuple, asked)) == {("shortcut",)}
    runs(model)


@pytest.mark.parametrize("amax", [0.0, float("inf"), float("nan"), 1e-40])
def test_a_range_that_gives_no_scale_leaves_the_finding_open(amax: float) -> None:
    model = network(RESIDUAL, "y")
    before = content(model)
    (finding,) = found(model, "TQ201", context=ranges(shortcut=amax))
    assert not finding.fixable and "no scale" in finding.message
    assert rules.fix(model, rules.lint(model, context=ranges(shortcut=amax)), context=ranges(shortcut=amax)) == 0
    assert content(model) == before


def test_calibrated_residuals_of_one_group_get_one_scale() -> None:
    body = f"""
    c = Conv (x_dq, w)
    shortcut = Sigmoid (c)
    pooled = {POOL} (shortcut)
    d = Conv (x_dq, w)
    e = Conv (x_dq, w)
    one = Add (d, shortcut)
    two = Add (e, pooled)
    one -> one_dq @ s
    two -> two_dq @ s
    y = Conv (one_dq, w)
    z = Conv (two_dq, w)
    """
    model, context = network(body, "y", "z"), ranges(shortcut=1.0, pooled=0.5)
    assert rules.fix(model, found(model, "TQ201", context=context), context=context) == 2
    assert scales(model)["shortcut"] == scales(model)["pooled"] == pytest.approx(1 / 127)
    assert found(model, "TQ101", "TQ102", "TQ103", "TQ201") == []


PICKED = f"""
    c = Conv (x_dq, w)
    pooled = {POOL} (c)
    pooled -> p @ s
    y = Conv (p, w)
    d = Conv (x_dq, w)
    sum = Add (d, c)
    sum -> sum_dq @ t
    z = Conv (sum_dq, w)
"""


def test_a_scale_behind_a_pool_does_not_cover_what_the_pool_dropped() -> None:
    model = network(PICKED, "y", "z")
    assert [one.fixable for one in found(model, "TQ201")] == [False]
    for amax, expected in ((25.4, 0.2), (6.35, 0.1)):
        model, context = network(PICKED, "y", "z"), ranges(c=amax)
        assert rules.fix(model, found(model, "TQ201", context=context), context=context) == 1
        assert scales(model)["c"] == scales(model)["pooled"] == pytest.approx(expected)


def test_residuals_that_hang_on_each_other_are_mended_in_one_pass() -> None:
    body = """
    x -> r @ s
    a = Conv (x_dq, w)
    one = Add (a, r)
    one -> one_dq @ s
    b = Conv (one_dq, w)
    two = Add (b, one)
    pooled = GlobalAveragePool (two)
    flat = Flatten (pooled)
    again = Unsqueeze (flat, axes)
    again -> again_dq @ t
    y = Conv (again_dq, w)
    """.replace("axes", "two_axes").replace(
        "    x -> r", "    two_axes = Constant <value_ints = [2, 3]> ()\n    x -> r"
    )
    model, context = network(body, "y"), ranges(two=3.0)
    open_findings = found(model, "TQ201", "TQ208")
    assert [(one.code, one.tensors, one.fixable) for one in open_findings] == [
        ("TQ201", ("one",), True),
        ("TQ208", ("two",), False),
    ]
    union = {name for one in open_findings for name in one.removes}
    before = conversions(model)
    assert rules.fix(model, rules.lint(model, context=context), context=context) == 2
    assert found(model, "TQ201", "TQ208") == []
    assert before - conversions(model) == len(union) == 3  # the shortcut `r` had to be dequantized too
    runs(model)


def test_a_float16_tensor_takes_a_float16_scale() -> None:
    model = network(RESIDUAL, "y")
    residual = next(node.outputs[0] for node in model.graph if node.op_type == "Sigmoid")
    residual.dtype = ir.DataType.FLOAT16
    context = ranges(shortcut=2.54)
    assert rules.fix(model, found(model, "TQ201", context=context), context=context) == 1
    (quantize,) = [node for node in residual.consumers() if node.op_type == "QuantizeLinear"]
    assert present(present(quantize.inputs[1]).const_value).dtype == ir.DataType.FLOAT16


CHAIN = f"""
    c = Conv (x_dq, w)
    p0 = {POOL} (c)
    p1 = {POOL} (p0)
    p1 -> p1_dq @ t
    y = Conv (p1_dq, w)
    {{float_reader}}
"""


@pytest.mark.parametrize("end", ["p0", "p1"])
def test_a_pool_chain_gets_one_pair_where_float_begins(end: str, tmp_path: Path) -> None:
    model = network(CHAIN.format(float_reader=f"z = Sigmoid ({end})\n    a = Exp ({end})"), "y", "z", "a")
    (finding,) = found(model, "TQ206")
    assert finding.tensors == (end,) and finding.fixable and "(0.2)" in finding.message
    twice = compiled(model, tmp_path)
    assert Counter(reads(twice, "maxpool"))["float32"] == (1 if end == "p0" else 2)
    assert rules.fix(model, [finding]) == 1
    assert rules.lint(model) == ()
    readers = {node.op_type: node.inputs[0] for node in model.graph if node.op_type in ("Sigmoid", "Exp")}
    assert readers["Sigmoid"] is readers["Exp"] and producer(readers["Exp"]).op_type == "DequantizeLinear"
    pools = [node for node in model.graph if node.op_type == "MaxPool"]
    assert all(producer(node.inputs[0]).op_type != "DequantizeLinear" for node in pools)
    once = compiled(model, tmp_path)
    assert reads(once, "maxpool") == ["int8", "int8"]
    assert present(once.signals.traffic_bytes) < present(twice.signals.traffic_bytes)
    runs(model)


def test_pools_of_one_group_are_one_finding() -> None:
    body = CHAIN.format(float_reader="z = Sigmoid (p0)\n    a = Exp (p1)")
    (finding,) = found(network(body, "y", "z", "a"), "TQ206")
    assert finding.tensors == ("p0", "p1")


def test_a_chain_with_a_float_end_alone_behind_it_is_paired_at_that_end() -> None:
    body = f"""
    c = Conv (x_dq, w)
    p0 = {POOL} (c)
    p1 = {POOL} (p0)
    p0 -> p0_dq @ t
    y = Conv (p0_dq, w)
    z = Sigmoid (p1)
    """
    model = network(body, "y", "z")
    (finding,) = found(model, "TQ206")
    assert finding.tensors == ("p1",) and rules.fix(model, [finding]) == 1
    assert rules.lint(model) == ()


@pytest.mark.parametrize("case", ["output", "int8 alone", "float alone", "shape alone"])
def test_other_pools_are_left_alone(case: str) -> None:
    body, outputs = {
        "output": (CHAIN.format(float_reader=""), ("y", "p1")),
        "int8 alone": (CHAIN.format(float_reader="p1 -> q @ t\n    z = Sigmoid (q)"), ("y", "z")),
        "float alone": (f"c = Conv (x_dq, w)\n    y = {POOL} (c)\n    z = Sigmoid (y)", ("z",)),
        "shape alone": (CHAIN.format(float_reader="d = Shape (p1)\n    z = Reshape (y, d)"), ("z",)),
    }[case]
    assert found(network(body, *outputs), "TQ206") == []


GATE = """
    c = Conv (x_dq, w)
    {use}
    pooled = GlobalAveragePool (c)
    pooled -> pooled_dq @ t
    z = Conv (pooled_dq, w)
"""


def test_an_average_pool_takes_the_scale_of_another_consumer_or_the_calibrated_one() -> None:
    shared = network(GATE.format(use="c -> c_dq @ u\n    y = Conv (c_dq, w)"), "y", "z")
    (finding,) = found(shared, "TQ208")
    assert finding.fixable and finding.tensors == ("c",) and set(finding.removes) == {"c_dq_q", "pooled_dq_q"}
    before = conversions(shared)
    assert rules.fix(shared, [finding]) == 1 and rules.lint(shared) == ()
    assert before - conversions(shared) == 2 and scales(shared)["c"] == pytest.approx(0.3)

    alone = network(GATE.format(use=""), "z")
    (finding,) = found(alone, "TQ208")
    assert not finding.fixable and "--calibration" in finding.message and finding.removes == ("pooled_dq_q",)
    before = conversions(alone)
    assert rules.fix(alone, found(alone, "TQ208", context=ranges(c=12.7)), context=ranges(c=12.7)) == 1
    assert before - conversions(alone) == 1 and scales(alone)["c"] == pytest.approx(0.1)
    runs(alone)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (GATE.format(use="y = Sigmoid (c)"), ("y", "z")),
        (GATE.format(use=""), ("z", "c")),
        (GATE.format(use="") + "y = Exp (pooled)", ("z", "y")),
        ("c = Sigmoid (x)\n pooled = GlobalAveragePool (c)\n pooled -> p @ t\n z = Conv (p, w)", ("z",)),
        ("c = Conv (x_dq, w)\n z = GlobalAveragePool (c)", ("z",)),
    ],
    ids=["read in float", "an output", "result read in float", "written in float", "result not quantized"],
)
def test_an_average_pool_that_would_gain_nothing_is_left_alone(body: str, outputs: tuple[str, ...]) -> None:
    assert found(network(body, *outputs), "TQ208") == []


MIXED = """
    left = Conv (x_dq, w)
    right = Conv (x_dq, k)
    left -> left_dq @ s
    {use}
    joined = Concat <axis = 1> (left_dq, right)
    {between}
    y = Conv ({data}, v)
"""


def test_a_float_branch_waits_for_its_range_and_all_branches_get_the_widest_scale(tmp_path: Path) -> None:
    for amax, expected in ((25.4, 0.2), (1.27, 0.1)):
        model = network(MIXED.format(use="", between="", data="joined"), "y")
        (finding,) = found(model, "TQ209")
        assert finding.tensors == ("right",) and not finding.fixable and "--calibration" in finding.message
        before = conversions(model)
        context = ranges(right=amax)
        assert rules.fix(model, found(model, "TQ209", context=context), context=context) == 1
        assert rules.lint(model) == ()
        assert scales(model)["joined"] == scales(model)["left"] == pytest.approx(expected)
        assert before - conversions(model) == len(finding.removes) == 1
    assert reads(compiled(network(MIXED.format(use="", between="", data="joined"), "y"), tmp_path), "correlation") == [
        "float32", "int8", "int8"
    ]  # fmt: skip
    assert reads(compiled(model, tmp_path), "correlation") == ["int8"] * 3
    runs(model)


def test_a_float_branch_with_a_scale_for_another_consumer_needs_no_images() -> None:
    use = "right -> right_dq @ u\n    z = Conv (right_dq, w)"
    model = network(MIXED.format(use=use, between=f"pooled = {POOL} (joined)", data="pooled"), "y", "z")
    (finding,) = found(model, "TQ209")
    assert finding.fixable and rules.fix(model, [finding]) == 1
    for name in ("left", "right", "pooled"):
        assert scales(model)[name] == pytest.approx(0.3)
    assert found(model, "TQ101", "TQ209") == []


@pytest.mark.parametrize(
    "body",
    [
        MIXED.format(use="", between="joined -> j @ s", data="j"),
        MIXED.format(use="right -> right_dq @ s", between="", data="joined").replace(", right)", ", right_dq)"),
        MIXED.format(use="", between="", data="joined").replace("(left_dq, right)", "(left, right)"),
    ],
    ids=["quantized behind", "all quantized", "none quantized"],
)
def test_other_concats_are_left_alone(body: str) -> None:
    assert found(network(body, "y"), "TQ209") == []


SQUEEZE = """
    c = Conv (x_dq, w)
    g = Sigmoid (c)
    active = Mul (c, g)
    pooled = GlobalAveragePool (active)
    pooled -> pooled_dq @ s
    e = Conv (pooled_dq, w)
    share = Sigmoid (e)
    scaled = Mul (active, share)
    scaled -> scaled_dq @ t
    y = Conv (scaled_dq, w)
"""


def test_a_squeeze_and_excitation_block_is_one_island() -> None:
    model = network(SQUEEZE, "y")
    (finding,) = found(model, "TQ213")
    assert finding.tensors == ("active", "share", "pooled", "scaled") and not finding.fixable
    assert set(finding.removes) == {"pooled_dq_q", "scaled_dq_q"}
    assert conversions(model) - 1 == len(finding.removes)  # all but the input's own
    assert "GlobalAveragePool, Mul in float" in finding.message and "2 conversions" in finding.message
    before = content(model)
    assert rules.fix(model, [finding]) == 0 and content(model) == before


@pytest.mark.parametrize(
    ("float_part", "count"),
    [
        ("t0 = Softmax <axis = 1> (c)\n t1 = Exp (t0)\n flat = Identity (t1)\n flat -> q @ t", 1),
        ('flat = Resize <mode = "linear"> (c, , sizes)\n flat -> q @ t', 1),
        ("c -> c_dq @ s\n t0 = Exp (c_dq)\n flat = Transpose <perm = [0, 1, 3, 2]> (t0)\n flat -> q @ t", 2),
    ],
)
def test_an_island_costs_what_is_predicted(float_part: str, count: int) -> None:
    model = network(f"c = Conv (x_dq, w)\n {float_part}\n y = Conv (q, w)", "y")
    (finding,) = found(model, "TQ213")
    assert len(finding.removes) == count == conversions(model) - 1


def test_what_a_residual_pair_will_make_an_island_is_one_already() -> None:
    residual = "t0 = Exp (c)\n c -> d @ s\n o = Conv (d, w)\n f = Add (t0, o)\n f -> q @ t"
    body = f"c = Conv (x_dq, w)\n {residual}\n y = Conv (q, w)"
    model, context = network(body, "y"), ranges(t0=1.27)
    (finding,) = found(model, "TQ213")
    assert finding.tensors == ("c", "t0") and finding.removes == ("d_q",)
    assert rules.fix(model, rules.lint(model, context=context), context=context) == 1
    assert [one.tensors for one in rules.lint(model)] == [("c", "t0")]


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x_dq, w)\n y = Softmax (c)",
        "t0 = Exp (x)\n t0 -> q @ t\n y = Conv (q, w)",
        "c = Conv (x_dq, w)\n r = LeakyRelu (c)\n r -> q @ t\n y = Conv (q, w)",
        "c = Conv (x_dq, w)\n c -> a @ s\n m = Mul (a, x_dq)\n m -> q @ t\n y = Conv (q, w)",
        f"c = Conv (x_dq, w)\n p = {POOL} (c)\n p -> q @ t\n y = Conv (q, w)",
        "c = Conv (x_dq, w)\n d = Shape (c)\n e = Mul (d, d)\n h = Div (e, d)\n p = Reshape (c, h)\n p -> q @ t\n"
        " y = Conv (q, w)",
    ],
    ids=["ends in float", "begins in float", "fused", "arithmetic with its pairs", "moves values", "shape arithmetic"],
)
def test_what_is_no_island(body: str) -> None:
    assert found(network(body, "y"), "TQ213") == []
