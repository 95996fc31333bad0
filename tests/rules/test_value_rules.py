"""The rules on values and types: what they find beyond their examples, and what their fixes do to the numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir_values import stored
from tests.rules.rule_graphs import found, graph, mend, operators, run
from trtq import rules
from trtq.rules import Context

PAIR = "network (float[64] x) => (float[64] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"
CONV = """network (float[1,2,4,4] x) => (float[1,3,4,4] y)
{ w = DequantizeLinear <axis = 0> (w_q, s, z)  y = Conv (x, w) }"""
FLOAT_CONV = """network (float[1,2,4,4] x) => (float[1,3,4,4] y)
{ q = QuantizeLinear <axis = 0> (w, s, z)  d = DequantizeLinear <axis = 0> (q, s, z)  y = Conv (x, d) }"""
IMAGE = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)


def scale_of(model: ir.Model, output: str) -> np.ndarray:
    [node] = [node for node in model.graph if node.outputs[0].name == output]
    return stored(node.inputs[1])


def zero_point_of(model: ir.Model, output: str) -> np.ndarray:
    [node] = [node for node in model.graph if node.outputs[0].name == output]
    return stored(node.inputs[2])


@settings(max_examples=150, deadline=None)
@given(
    scale=st.floats(2**-10, 8, width=32),
    zero_point=st.integers(-128, 127),
    unsigned=st.booleans(),
)
def test_symmetric_int8_reaches_as_far_and_stays_within_half_of_both_steps(
    scale: float, zero_point: int, unsigned: bool
) -> None:
    dtype, zero = (np.uint8, zero_point + 128) if unsigned else (np.int8, zero_point)
    limits = np.iinfo(dtype)
    low, high = (limits.min - zero) * scale, (limits.max - zero) * scale
    x = np.linspace(low, high, 64).astype(np.float32)
    model = graph(PAIR, s=np.float32(scale), z=np.asarray(zero, dtype))
    [before] = run(model, x=x)
    wrong = unsigned or zero != 0
    rules.mend(model, select=["TQ301", "TQ302"])
    assert zero_point_of(model, "q").dtype == np.int8 and not zero_point_of(model, "q").any()
    new = float(scale_of(model, "q"))
    assert new <= scale * 2.01 and (wrong or new == np.float32(scale))
    assert new * 127 >= high * (1 - 1e-6) and new * 128 >= -low * (1 - 1e-6)
    [after] = run(model, x=x)
    assert np.abs(after - before).max() <= (scale + new) / 2 * (1 + 1e-5)


def test_uint8_around_128_keeps_every_number() -> None:
    x = np.linspace(-20, 20, 64).astype(np.float32)
    model = graph(PAIR, s=np.float32(0.1), z=np.uint8(128))
    [before] = run(model, x=x)
    mend(model, "TQ302")
    assert scale_of(model, "q") == np.float32(0.1)
    assert np.array_equal(run(model, x=x)[0], before)


def test_unsigned_from_zero_has_its_scale_doubled() -> None:
    model = graph(PAIR, s=np.float32(0.1), z=np.uint8(0))
    mend(model, "TQ302")
    assert scale_of(model, "q") == pytest.approx(0.1 * 255 / 127)


FOLDED_RELU = """network (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] kept)
{ c = Conv (x, w)  q = QuantizeLinear (c, s, z)  y = DequantizeLinear (q, s, z)  kept = Neg (c) }"""


@pytest.mark.parametrize("zero", [np.int8(-128), np.uint8(0)])
def test_what_a_range_from_zero_cuts_off_is_still_cut_off(zero: np.generic) -> None:
    model = graph(FOLDED_RELU, s=np.float32(0.05), z=zero, w=np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1))
    before = run(model, x=IMAGE)
    mend(model, "TQ302" if zero.dtype == np.uint8 else "TQ301")
    assert operators(model) == ["Conv", "Relu", "QuantizeLinear", "DequantizeLinear", "Neg"]
    after = run(model, x=IMAGE)
    assert after[0].min() == 0 and np.abs(after[0] - before[0]).max() <= 0.05 * 1.51
    assert np.array_equal(after[1], before[1])


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu (x)",
        "r = Sigmoid (x)",
        "a = Relu (x)  r = MaxPool <kernel_shape = [1, 1]> (a)",
        "a = Relu (x)  b = Sigmoid (x)  r = Mul (a, b)",
        "a = Abs (x)  b = QuantizeLinear (a, s, z)  c = DequantizeLinear (b, s, z)  r = Slice (c, zero, four, one)",
        "low = Constant <value = float {0.0}> ()  r = Clip (x, low)",
        "r = Identity (x)",
    ],
)
def test_no_relu_is_put_behind_what_is_never_negative(body: str) -> None:
    text = f"""network (float[1,1,4,4] x) => (float[1,1,4,4] y)
    {{ {body}  q = QuantizeLinear (r, s, z)  y = DequantizeLinear (q, s, z) }}"""
    axis = {"zero": np.array([0]), "four": np.array([4]), "one": np.array([2])} if "Slice" in body else {}
    model = graph(text, s=np.float32(0.1), z=np.int8(-128), **axis)
    before = operators(model)
    mend(model, "TQ301")
    if "Identity" in body:  # the network's input behind a copy: the producer may have folded an operator there
        before.insert(1, "Relu")
    assert operators(model) == before


def test_weights_keep_every_number_where_their_integers_fit() -> None:
    w = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 1)).astype(np.uint8)
    scales = np.array([0.1, 0.2, 0.3], np.float32)
    model = graph(CONV, w_q=w, s=scales, z=np.array([128, 128, 128], np.uint8))
    before = run(model, x=IMAGE)
    mend(model, "TQ302")
    assert np.array_equal(scale_of(model, "w"), scales)
    assert np.array_equal(run(model, x=IMAGE)[0], before[0])


def test_weights_that_do_not_fit_are_rounded_to_the_nearest_in_their_own_channel() -> None:
    w = np.array([[0, 10], [100, 255], [120, 140]], np.uint8).reshape(3, 2, 1, 1)
    scales, zero = np.array([0.1, 0.2, 0.3], np.float32), np.array([0, 0, 128], np.uint8)
    model = graph(CONV, w_q=w, s=scales, z=zero)
    mend(model, "TQ301")
    new = scale_of(model, "w")
    assert new[0] == scales[0] and new[2] == scales[2] and new[1] == pytest.approx(0.2 * 255 / 127)
    [node] = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    integers = stored(node.inputs[0]).astype(np.float64)
    exact = (w.astype(np.float64) - zero.reshape(3, 1, 1, 1)) * scales.reshape(3, 1, 1, 1)
    error = np.abs(integers * new.reshape(3, 1, 1, 1) - exact).reshape(3, 2)
    assert error[0].max() < 1e-6 and error[2].max() < 1e-6 and error[1].max() <= new[1] / 2


def test_float_weights_are_cut_where_the_old_range_cut_them() -> None:
    w = np.array([[-1.0, 0.5], [0.25, 9.0], [1.0, 2.0]], np.float32).reshape(3, 2, 1, 1)
    model = graph(FLOAT_CONV, w=w, s=np.float32(0.02), z=np.uint8(0))
    before = run(model, x=IMAGE)
    mend(model, "TQ302")
    kept = stored(next(node.inputs[0] for node in model.graph if node.op_type == "QuantizeLinear"))
    assert kept.min() == 0 and kept.max() == pytest.approx(255 * 0.02)
    assert np.abs(run(model, x=IMAGE)[0] - before[0]).max() < 2 * 4 * 0.04


def test_all_of_a_region_changes_together() -> None:
    text = """network (float[1,1,4,4] x) => (float[1,1,4,4] y, float[1,2,2,4] z)
    { q = QuantizeLinear (x, s, zp)  p = MaxPool <kernel_shape = [1, 1]> (q)  y = DequantizeLinear (p, s, zp)
      a, b = Split <axis = 2> (p)  j = Concat <axis = 1> (a, b)  z = DequantizeLinear (j, s, zp) }"""
    model = graph(text, s=np.float32(0.1), zp=np.uint8(128))
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32)
    before = run(model, x=x)
    assert len(mend(model, "TQ302")) == 1
    assert all(np.array_equal(one, other) for one, other in zip(run(model, x=x), before, strict=True))
    assert {str(node.outputs[0].dtype) for node in model.graph if "Dequantize" not in node.op_type} == {"INT8"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(float[4] x) => (uint8[4] q) { q = QuantizeLinear (x, s, z) }", "goes in or out"),
        ("(uint8[4] x) => (float[4] y) { y = DequantizeLinear (x, s, z) }", "goes in or out"),
        (
            "(float[4] x) => (float[4] y, float[4] c) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)"
            "  c = Cast <to = 1> (q) }",
            "Cast 'c' works on its integers",
        ),
        (
            "(float[4] x) => (float[4] y) { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, t, z) }",
            "QuantizeLinear and DequantizeLinear differ",
        ),
    ],
)
def test_integers_that_others_see_stay_as_they_are(text: str, why: str) -> None:
    model = graph(f"network {text}", s=np.float32(0.1), t=np.float32(0.2), z=np.uint8(7))
    content = ir.to_proto(model).SerializeToString(deterministic=True)
    findings = found(model, "TQ301")
    assert [finding.fixable for finding in findings] == [False] and why in findings[0].message
    assert rules.fix(model, findings) == 0
    assert ir.to_proto(model).SerializeToString(deterministic=True) == content


def test_a_missing_zero_point_is_not_guessed() -> None:
    text = "network (float[64] x) => (float[64] y) { q = QuantizeLinear (x, s)  y = DequantizeLinear (q, s) }"
    [finding] = found(graph(text, s=np.float32(0.1)), "TQ303")
    assert not finding.fixable and "say which was meant" in finding.message
    told = text.replace("QuantizeLinear (x", "QuantizeLinear <output_dtype = 3> (x", 1)
    assert found(graph(told, 21, s=np.float32(0.1)), "TQ303") == []


def test_a_missing_zero_point_is_added_where_no_number_changes() -> None:
    text = FLOAT_CONV.replace(", s, z)", ", s)")
    w = np.array([0.5, 0.25, 0.0, 1.0, 0.75, 1.27], np.float32).reshape(3, 2, 1, 1)
    model = graph(text, w=w, s=np.float32(0.01))
    before = run(model, x=IMAGE)
    mend(model, "TQ303")
    assert zero_point_of(model, "q").dtype == np.int8 and zero_point_of(model, "d").dtype == np.int8
    assert np.array_equal(run(model, x=IMAGE)[0], before[0])
    above = graph(text, w=w * 2, s=np.float32(0.01))
    assert [finding.fixable for finding in found(above, "TQ303")] == [False]


def test_a_channel_that_its_scale_kills_comes_back() -> None:
    w = np.array([1.0, -1.27, 0.004, 0.002, 0.0, 0.0], np.float32).reshape(3, 2, 1, 1)
    model = graph(FLOAT_CONV, w=w, s=np.float32(0.01), z=np.int8(0))
    [finding] = mend(model, "TQ305")
    assert "1 of 3 output channels (1)" in finding.message
    assert scale_of(model, "q") == pytest.approx([0.01, 0.004 / 127, 0.01])
    [output] = run(model, x=IMAGE)
    exact = np.einsum("oihw,nihw->nohw", w, IMAGE[:, :, :1, :1])
    assert np.abs(output[:, :, :1, :1] - exact).max() < 0.02
    assert output[:, 1].any()


def test_per_channel_activations_take_the_widest_scale_and_a_single_element_is_none() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { q = QuantizeLinear <axis = 1> (x, s, z)  y = DequantizeLinear <axis = 1> (q, s, z) }"""
    model = graph(text, s=np.array([0.1, 0.3], np.float32), z=np.zeros(2, np.int8))
    mend(model, "TQ306")
    assert scale_of(model, "q") == np.float32(0.3) and scale_of(model, "q").shape == ()
    assert run(model, x=IMAGE)[0].shape == IMAGE.shape
    assert found(graph(text, s=np.float32(0.1), z=np.int8(0)), "TQ306") == []


def test_asymmetric_per_channel_activations_are_mended_in_turn() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { q = QuantizeLinear <axis = 1> (x, s, z)  y = DequantizeLinear <axis = 1> (q, s, z) }"""
    model = graph(text, s=np.array([0.1, 0.3], np.float32), z=np.array([3, -5], np.int8))
    assert {(finding.code, finding.fixable) for finding in rules.lint(model, select=["TQ301", "TQ306"])} == {
        ("TQ301", True),
        ("TQ306", False),
    }
    rules.mend(model, select=["TQ301", "TQ306"])
    assert rules.lint(model, select=["TQ301", "TQ306"]) == ()
    assert scale_of(model, "q") == pytest.approx(0.3 * 132 / 127)


def test_a_wrong_axis_is_mended_for_each_operator() -> None:
    w = np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32)
    for operator, attributes, right in (("Gemm", "", 1), ("Gemm", "<transB = 1>", 0), ("MatMul", "", 1)):
        text = f"""network (float[4,2] x) => (float[4,2] y)
        {{ q = QuantizeLinear <axis = AXIS> (w, s, z)  d = DequantizeLinear <axis = AXIS> (q, s, z)
          y = {operator} {attributes} (x, d) }}"""
        constants: dict[str, npt.ArrayLike] = {
            "w": w,
            "s": np.array([0.02, 0.03], np.float32),
            "z": np.zeros(2, np.int8),
        }
        assert found(graph(text.replace("AXIS", str(right)), **constants), "TQ307") == []
        model = graph(text.replace("AXIS", str(1 - right)), **constants)
        x = IMAGE[0, 0, :, :2]
        assert len(mend(model, "TQ307")) == 1
        exact = x @ (w.T if "transB" in attributes else w)
        assert np.abs(run(model, x=x)[0] - exact).max() < 0.1
        assert scale_of(model, "q") == pytest.approx(np.abs(w).max(axis=1 - right) / 127)


def test_scales_of_the_output_channels_that_lost_their_axis_get_it_back() -> None:
    text = CONV.replace("<axis = 0> ", "")
    w, scales = np.arange(6, dtype=np.int8).reshape(3, 2, 1, 1), np.array([0.1, 0.2, 0.3], np.float32)
    model = graph(text, w_q=w, s=scales, z=np.zeros(3, np.int8))
    [finding] = mend(model, "TQ307")
    assert "3 scales do not fit axis 1 of its shape [3, 2, 1, 1]" in finding.message
    right = graph(CONV, w_q=w, s=scales, z=np.zeros(3, np.int8))
    assert np.array_equal(run(model, x=IMAGE)[0], run(right, x=IMAGE)[0])
    hopeless = graph(text, w_q=w, s=np.ones(5, np.float32), z=np.zeros(5, np.int8))
    assert [finding.fixable for finding in found(hopeless, "TQ307")] == [False]


HALF_CONV = """network (float16[1,2,4,4] x) => (float16[1,3,4,4] y)
{ q = QuantizeLinear <axis = 0> (w, s, z)  d = DequantizeLinear <axis = 0> (q, t, z)  y = Conv (x, d) }"""


def test_a_pair_of_two_float_types_becomes_one_type_and_a_cast() -> None:
    w = np.array([1.0, -1.27, 0.5, 0.25, 0.75, 1.0], np.float32).reshape(3, 2, 1, 1)
    scales = np.array([0.0625, 0.03125, 0.0625], np.float32)
    model = graph(HALF_CONV, 19, w=w, s=scales, t=scales.astype(np.float16), z=np.zeros(3, np.int8))
    before = run(model, x=IMAGE.astype(np.float16))
    [finding] = mend(model, "TQ308")
    assert "float and float16" in finding.message
    assert operators(model) == ["QuantizeLinear", "DequantizeLinear", "Cast", "Conv"]
    assert np.array_equal(run(model, x=IMAGE.astype(np.float16))[0], before[0])


def test_half_precision_that_agrees_is_legal_and_scales_too_small_for_it_stay() -> None:
    w = np.ones((3, 2, 1, 1), np.float16)
    halves = np.full(3, 0.0625, np.float16)
    zero = np.zeros(3, np.int8)
    assert found(graph(HALF_CONV, 19, w=w, s=halves, t=halves, z=zero), "TQ308") == []
    tiny = np.full(3, 1e-6, np.float32)
    model = graph(HALF_CONV, 23, w=w, s=tiny, t=tiny, z=zero)
    assert [finding.fixable for finding in found(model, "TQ308")] == [False]


def test_a_type_that_the_file_does_not_state_is_followed() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    { h = Cast <to = 10> (x)  r = Relu (h)  q = QuantizeLinear (r, s, z)  y = DequantizeLinear (q, s, z) }"""
    model = graph(text, 23, s=np.float32(0.25), z=np.int8(0))
    for value in (node.outputs[0] for node in model.graph):
        value.type = None
    assert [finding.tensors for finding in found(model, "TQ308")] == [("r",)]


def test_a_computed_scale_is_folded_and_one_that_depends_on_the_input_is_not() -> None:
    text = """network (float[64] x) => (float[64] y)
    { s = Mul (a, b)  shape = Constant <value_ints = [0]> ()  q = QuantizeLinear (x, s, z)
      y = DequantizeLinear (q, s, z) }"""
    model = graph(text, a=np.float32(0.5), b=np.float32(0.25), z=np.int8(0))
    x = np.linspace(-9, 9, 64).astype(np.float32)
    before = run(model, x=x)
    mend(model, "TQ309")
    assert scale_of(model, "q") == 0.125 and "Mul" not in operators(model)
    assert np.array_equal(run(model, x=x)[0], before[0])

    dynamic = """network (float[64] x) => (float[64] y)
    { top = ReduceMax <keepdims = 0> (x)  s = Mul (top, a)  q = QuantizeLinear (x, s, z)
      y = DequantizeLinear (q, s, z) }"""
    [finding] = found(graph(dynamic, a=np.float32(0.5), z=np.int8(0)), "TQ309")
    assert not finding.fixable and "quantize statically" in finding.message


def test_a_zero_point_from_constant_of_shape_is_folded() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,3,4,4] y)
    { z = ConstantOfShape <value = int8[1] {0}> (n)  w = DequantizeLinear <axis = 0> (w_q, s, z)  y = Conv (x, w) }"""
    w = np.arange(6, dtype=np.int8).reshape(3, 2, 1, 1)
    model = graph(text, w_q=w, n=np.array([3]), s=np.ones(3, np.float32))
    [finding] = mend(model, "TQ309")
    assert "zero point is computed by ConstantOfShape" in finding.message
    assert operators(model) == ["DequantizeLinear", "Conv"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_quantized_bias_becomes_the_same_floats(shared: bool) -> None:
    text = """network (float[1,2,4,4] x) => (float[1,3,4,4] y, float[1,3,4,4] other)
    { b = DequantizeLinear <axis = 0> (b_q, s, z)  y = Conv (x, w, b)  other = Conv (x, w, OTHER) }"""
    constants = {
        "b_q": np.array([1000, -70000, 3], np.int32),
        "s": np.array([1e-3, 2e-4, 0.5], np.float32),
        "z": np.zeros(3, np.int32),
        "w": np.ones((3, 2, 1, 1), np.float32),
        "c": np.zeros(3, np.float32),
    }
    model = graph(text.replace("OTHER", "b" if shared else "c"), **constants)
    before = run(model, x=IMAGE)
    assert len(mend(model, "TQ310")) == 1
    assert operators(model) == ["Conv", "Conv"]
    assert all(np.array_equal(one, other) for one, other in zip(run(model, x=IMAGE), before, strict=True))


def test_a_bias_behind_a_pair_loses_the_pair_and_keeps_the_numbers() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,3,4,4] y)
    { q = QuantizeLinear (b, s, z)  d = DequantizeLinear (q, s, z)  y = Conv (x, w, d) }"""
    b, w = np.array([0.31, -0.29, 0.5], np.float32), np.ones((3, 2, 1, 1), np.float32)
    model = graph(text, b=b, s=np.float32(0.1), z=np.int8(0), w=w)
    before = run(model, x=IMAGE)
    mend(model, "TQ310")
    assert operators(model) == ["Conv"]
    assert np.array_equal(run(model, x=IMAGE)[0], before[0])


def test_bad_weights_are_found_behind_their_pair_and_counted() -> None:
    w = np.array([np.nan, 1, np.inf, -np.inf, 2, 3], np.float32).reshape(3, 2, 1, 1)
    [finding] = found(graph(FLOAT_CONV, w=w, s=np.float32(0.1), z=np.int8(0)), "TQ311")
    assert finding.tensors == ("w",) and "1 NaN and 2 infinite of 6 weights" in finding.message
    masked = "network (float[2] x) => (float[2] y) { y = Add (x, mask) }"
    assert found(graph(masked, mask=np.array([0, -np.inf], np.float32)), "TQ311") == []


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("stored", [False, True])
def test_a_transposed_convolution_gets_one_scale(axis: int, stored: bool) -> None:
    w = np.array([0.5, 1.0, -0.25, 1.5], np.float32).reshape(2, 2, 1, 1)
    scales = np.array([0.01, 0.015], np.float32)
    text = f"""network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    {{ q = QuantizeLinear <axis = {axis}> (w, s, z)  d = DequantizeLinear <axis = {axis}> (q, s, z)
      y = ConvTranspose (x, d) }}"""
    model = graph(text, w=w, s=scales, z=np.zeros(2, np.int8))
    if stored:
        rules.mend(model, select=["TQ313"], context=Context(target="trt10"))
    before = run(model, x=IMAGE)
    assert len(mend(model, "TQ312")) == 1
    assert scale_of(model, "d") == np.float32(0.015)
    assert np.abs(run(model, x=IMAGE)[0] - before[0]).max() < 4 * 2 * 0.015


def test_float_weights_are_stored_as_int8_only_for_targets_that_read_them() -> None:
    w = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    model = graph(FLOAT_CONV, w=w, s=np.full(3, 0.02, np.float32), z=np.zeros(3, np.int8))
    before = run(model, x=IMAGE)
    for context in (Context(), Context(target="trt8.5"), Context(target="trt8.6")):
        assert found(model, "TQ313", context) == []
    for target in ("trt10", "trt11", "rtx"):
        assert len(found(model, "TQ313", Context(target=target))) == 1
    mend(model, "TQ313", Context(target="rtx"))
    assert operators(model) == ["DequantizeLinear", "Conv"]
    assert np.array_equal(run(model, x=IMAGE)[0], before[0])


def test_names_dead_nodes_and_copies_are_mended_without_changing_a_number() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    <float[2,2,1,1] w = {1, 2, 3, 4}, float[2,2,1,1] v = {1, 2, 3, 4}, float[2,2,1,1] u = {1, 2, 3, 5}>
    { a = Conv (x, w)  b = Conv (a, v)  c = Conv (b, u)  y = Relu (c)  d = Relu (b)  e = Neg (d)  f = Exp (d) }"""
    model = graph(text)
    [before] = run(model, x=IMAGE)
    for node, name in zip(model.graph, ("n", "", "n", "n_1", "", "", ""), strict=True):
        node.name = name
    codes = [(finding.code, finding.tensors) for finding in rules.lint(model)]
    assert codes == [
        ("TQ901", ("b", "c", "d", "e", "f")),
        ("TQ902", ("e",)),
        ("TQ902", ("f",)),
        ("TQ903", ("w", "v")),
    ]
    assert rules.mend(model) == 4 and rules.lint(model) == ()
    names = [node.name for node in model.graph]
    assert names == ["n", "Conv_b", "n_2", "n_1"]
    assert sorted(model.graph.initializers) == ["u", "w"]
    assert np.array_equal(run(model, x=IMAGE)[0], before)


def test_copies_that_cost_little_and_parameters_are_left() -> None:
    rest = np.arange(1000, dtype=np.float32)
    text = "network (float[1000] x) => (float[1000] y) { a = Add (x, r)  b = Add (a, one)  y = Add (b, two) }"
    pair = np.array([1.0], np.float32)
    assert found(graph(text, r=rest, one=pair, two=pair), "TQ903") == []
    model = graph(text, r=rest, one=rest + 1, two=rest + 1)
    assert [finding.tensors for finding in found(model, "TQ903")] == [("one", "two")]


def test_names_inside_a_branch_are_mended_too_and_its_captures_are_alive() -> None:
    text = """network (float[2] x, bool c) => (float[2] y)
    { a = Neg (x)
      y = If (c) <then_branch = g1 () => (float[2] t) { t = Relu (a) },
                  else_branch = g2 () => (float[2] e) { e = Abs (a) }> }"""
    model = graph(text)
    [finding] = found(model, "TQ901")
    assert set(finding.tensors) == {"t", "e"}
    mend(model, "TQ901")
    assert found(model, "TQ902") == []
