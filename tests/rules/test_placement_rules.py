"""Scales that differ within a pair, a residual or a row of pairs, and Q/DQ in the wrong place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import present
from tests.ir_values import stored
from tests.rules.placed import POOL, RANDOM, SCALES, W_Q, X, codes, mended_alike, network
from tests.rules.rule_graphs import found, graph, mend, operators, run
from trtq import predict, qdq, rules
from trtq.rules import Context


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("x -> a @ s \n t0 = Conv (a, w) \n x -> r @ t \n y = Add (t0, r)", "TQ104"),
        ("x -> a @ s \n t0 = Conv (a, w) \n c = Identity (x) \n c -> r @ t \n y = Add (r, t0)", "TQ104"),
        (f"p = {POOL} (x) \n p -> a @ s \n t0 = Conv (a, w) \n p -> r @ t \n y = Add (t0, r)", "TQ104"),
        ("x -> a @ s \n a -> b @ t \n y = Conv (b, w)", "TQ106"),
        (f"x -> a @ s \n p = {POOL} (a) \n p -> b @ t \n y = Conv (b, w)", "TQ106"),
        (f"x -> a @ s \n u = Conv (a, w) \n p = {POOL} (x) \n p -> b @ t \n v = Conv (b, w) \n y = Mul (u, v)",
         "TQ102"),
        ("x -> a @ s \n u = Conv (a, w) \n x -> b @ t \n v = Conv (b, w) \n y = Mul (u, v)", "TQ103"),
        ("x -> a @ s \n a -> b @ t \n u = Conv (b, w) \n j = Concat <axis = 0> (b, b) \n j -> c @ s \n"
         "v = Conv (c, w) \n y = Mul (u, v)", "TQ101"),
    ],
)  # fmt: skip
def test_a_group_that_disagrees_is_the_matter_of_one_rule(body: str, code: str) -> None:
    model = network(body, "float[n,2,6,6] y")
    findings = [one for one in rules.lint(model) if one.code.startswith("TQ1")]
    assert [one.code for one in findings] == [code]
    assert rules.fix(model, findings) == 1
    assert not [one for one in codes(model) if one.startswith("TQ1")]


def test_a_row_of_pairs_ends_as_one_pair_of_the_widest_scale() -> None:
    model = network("x -> a @ s \n a -> b @ t \n y = Conv (b, w)")
    assert rules.mend(model) == 2
    assert codes(model) == []
    assert operators(model).count("QuantizeLinear") == 1
    assert [qdq.reading.scalar_scale(node) for node in model.graph if node.op_type == "QuantizeLinear"] == [
        pytest.approx(0.08)
    ]


def test_a_dequantizer_with_quite_another_scale_is_found_and_left() -> None:
    model = network("q = QuantizeLinear (x, s, zero) \n d = DequantizeLinear (q, t, zero) \n y = Conv (d, w)")
    (finding,) = found(model, "TQ105")
    assert finding.tensors == ("x",) and not finding.fixable and finding.safety == "needs review"
    assert "1.6 times the scale" in finding.message
    before = run(model, x=X)
    assert rules.fix(model, [finding]) == 0
    assert np.array_equal(before, run(model, x=X))


def test_a_scale_rounded_to_a_half_float_takes_its_quantizers_even_behind_a_reshape() -> None:
    body = (
        "q = QuantizeLinear (x, s, zero) \n m = Reshape (q, dims)\n d = DequantizeLinear (m, h, zero)\n y = Conv (d, w)"
    )
    half = np.float32(np.float16(SCALES["s"]))
    model = network(body, h=half, dims=np.array([1, 2, 6, 6]))
    (finding,) = mended_alike(model, "TQ105", tolerance=2e-3)
    assert finding.fixable and finding.tensors == ("x",)
    scales = {qdq.reading.scalar_scale(node) for node in model.graph if node.outputs[0].name in ("q", "d")}
    assert scales == {float(SCALES["s"])}


def test_per_channel_weights_are_compared_channel_by_channel() -> None:
    body = """k_q = QuantizeLinear <axis = 0> (wf, one, zeros)
    k = DequantizeLinear <axis = 0> (k_q, two, zeros)
    x -> a @ s
    y = Conv (a, k)"""
    weights, zeros = W_Q.astype(np.float32) / 100, np.zeros(2, np.int8)
    one = np.array([0.01, 0.02], np.float32)
    assert found(network(body, wf=weights, zeros=zeros, one=one, two=one), "TQ105") == []
    (finding,) = found(
        network(body, wf=weights, zeros=zeros, one=one, two=one * np.array([1, 0.5], np.float32)), "TQ105"
    )
    assert finding.tensors == ("wf",) and "0.5 times" in finding.message


HALF_WEIGHTS = {
    "Conv": ("y = Conv (a, k)", (2, 2, 1, 1), 2),
    "ConvTranspose": ("y = ConvTranspose (a, k)", (2, 2, 1, 1), 1),
    "MatMul": ("y = MatMul (a, k)", (6, 6), 6),
    "Gemm": ("f = Flatten <axis = 3> (a) \n g = Gemm (f, k) \n y = Reshape (g, dims)", (6, 6), 6),
    "transposed": ("f = Flatten <axis = 3> (a) \n g = Gemm <transB = 1> (f, k) \n y = Reshape (g, dims)", (6, 6), 6),
    "first input": ("y = MatMul (k, a)", (6, 6), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HALF_WEIGHTS)
def test_float_weights_beside_a_quantized_activation_get_their_own_scales(name: str) -> None:
    layer, shape, scales = HALF_WEIGHTS[name]
    weights = RANDOM.standard_normal(shape).astype(np.float32)
    weights[..., 1:, 0] *= 0.1
    model = network(f"x -> a @ s \n {layer}", k=weights, dims=np.array([1, 2, 6, 6]))
    (finding,) = mended_alike(model, "TQ202", tolerance=0.06)
    assert finding.tensors == ("k",) and finding.removes == ("a_q",) and "weights" in finding.message
    assert codes(model) == []
    (pair,) = [node for node in model.graph if node.op_type == "QuantizeLinear" and present(node.inputs[0]).name == "k"]
    assert present(qdq.reading.scale(pair)).size == scales


def test_weights_that_are_no_numbers_are_left_to_their_own_rule() -> None:
    (finding,) = found(network("x -> a @ s \n y = Conv (a, k)", k=np.full((2, 2, 1, 1), np.nan, np.float32)), "TQ202")
    assert not finding.fixable and "TQ311" in finding.message


def test_a_float_activation_takes_a_scale_that_the_file_holds() -> None:
    model = network("x -> a @ s \n u = Conv (a, w) \n v = Conv (x, w) \n y = Add (u, v)")
    (finding,) = found(model, "TQ202")
    assert finding.tensors == ("x",) and finding.fixable and finding.removes == ()
    mend(model, "TQ202")
    assert [qdq.reading.scalar_scale(node) for node in model.graph if node.op_type == "QuantizeLinear"] == [
        pytest.approx(0.05)
    ] * 2


def test_a_float_activation_waits_for_calibration_once_for_all_its_layers() -> None:
    model = network("u = Conv (x, w) \n v = Conv (x, w) \n y = Add (u, v)")
    (finding,) = found(model, "TQ202")
    assert finding.tensors == ("x",) and not finding.fixable and "--calibration" in finding.message
    known = Context(ranges=lambda model, tensors: {name: float(np.abs(X).max()) for name in tensors})
    (before,) = run(model, x=X)
    assert [one.fixable for one in mend(model, "TQ202", known)] == [True]
    np.testing.assert_allclose(run(model, x=X)[0], before, atol=0.05)
    assert operators(model).count("QuantizeLinear") == 2


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv (x, k)",
        "x -> a @ s \n p = Transpose (a) \n q = Transpose (p) \n y = Conv (q, w)",
        f"x -> a @ s \n p = {POOL} (a) \n y = Conv (p, w)",
    ],
)
def test_layers_with_both_inputs_or_none_quantized_are_not_half(body: str) -> None:
    assert found(network(body, k=W_Q.astype(np.float32)), "TQ202") == []


SILU = "c -> d @ s \n g = Sigmoid (d) \n {gate} \n m = Mul (d, {read}) \n m -> e @ t \n y = Conv (e, w)"


@pytest.mark.parametrize(
    ("body", "tensors", "left"),
    [
        ("c -> d @ s \n m = Relu (d) \n m -> e @ s \n y = Conv (e, w)", ("c",), 2),
        ("c -> d @ s \n m = LeakyRelu (d) \n m -> e @ t \n y = Conv (e, w)", ("c",), 2),
        ("c -> d @ s \n m = Sigmoid (d) \n y = Mul (m, x)", ("c",), 1),
        (SILU.format(gate="", read="g"), ("c",), 2),
        (SILU.format(gate="g -> h @ t", read="h"), ("c", "g"), 2),
        ("x -> r @ s \n a2 = Add (c, r) \n a2 -> d @ s \n m = Relu (d) \n m -> e @ s \n y = Conv (e, w)", ("a2",), 3),
        ("c -> d @ s \n m = BatchNormalization (d, n, n, n, n) \n m -> e @ t \n y = Conv (e, w)", ("c",), 2),
    ],
)
def test_pairs_inside_a_fused_kernel_go(body: str, tensors: tuple[str, ...], left: int) -> None:
    model = network(f"x -> a @ s \n c = Conv (a, w) \n {body}", n=np.ones(2, np.float32))
    (finding,) = mended_alike(model, "TQ203", tolerance=0.2)
    assert finding.tensors == tensors
    assert operators(model).count("QuantizeLinear") == left
    assert found(model, "TQ203") == []


def test_a_pair_moves_behind_a_relu_where_nothing_else_would_quantize() -> None:
    model = network(f"x -> a @ s \n c = Conv (a, w) \n c -> d @ t \n r = Relu (d) \n p = {POOL} (r) \n y = Conv (p, w)")
    (finding,) = mended_alike(model, "TQ203")
    assert finding.safety == "lossless" and finding.removes == ()
    order = operators(model)
    assert order.index("Relu") == order.index("Conv") + 1 and order.count("QuantizeLinear") == 2
    rules.mend(model)
    assert codes(model) == []


@pytest.mark.parametrize(
    "body",
    [
        "c -> d @ s \n r = Relu (d) \n y = Mul (d, r)",
        "c -> d @ s \n r = Relu (d) \n y = Mul (r, c)",
        "c -> d @ s \n r = Softmax (d) \n r -> e @ s \n y = Conv (e, w)",
        "r = Relu (c) \n r -> e @ s \n y = Conv (e, w)",
    ],
)
def test_pairs_that_stand_where_they_should_stay(body: str) -> None:
    assert found(network(f"x -> a @ s \n c = Conv (a, w) \n {body}"), "TQ203") == []


def test_a_scale_that_goes_with_its_pair_widens_no_other() -> None:
    """The pair in front of the Relu has the wider scale; it goes, and the one behind keeps its finer steps."""
    body = "x -> a @ s \n c = Conv (a, w) \n c -> d @ t \n r = Relu (d) \n r -> e @ s \n y = Conv (e, w)"
    model = network(body)
    assert codes(model) == ["TQ203"]
    rules.mend(model)
    scales = [qdq.reading.scalar_scale(node) for node in model.graph if node.op_type == "QuantizeLinear"]
    assert scales == [pytest.approx(0.05)] * 2 and codes(model) == []


NORMALIZATION = {
    "gamma": np.array([1.5, -0.4], np.float32),
    "beta": np.array([0.1, -0.2], np.float32),
    "mean": np.array([0.3, 0.0], np.float32),
    "var": np.array([0.7, 2.0], np.float32),
}
NORMALIZED = "y = BatchNormalization (c, gamma, beta, mean, var)"


@pytest.mark.parametrize(
    "weights",
    [
        "c = Conv (a, k)",
        "c = Conv (a, k, b)",
        "v = DequantizeLinear (v_q, ws, zero) \n c = Conv (a, v)",
        "v = DequantizeLinear <axis = 0> (v_q, per, zeros) \n c = Conv (a, v, b)",
        "u = QuantizeLinear <axis = 0> (k, per, zeros) \n v = DequantizeLinear <axis = 0> (u, per, zeros)\n"
        "c = Conv (a, v)",
        "u = Identity (v_q) \n v = DequantizeLinear (u, ws, zero) \n i = Identity (v) \n d = Conv (a, i)\n"
        "c = Identity (d)",
    ],
)
@pytest.mark.parametrize("gamma", [1.5, 0.0])
def test_a_batch_normalization_goes_into_weights_that_keep_their_integers(weights: str, gamma: float) -> None:
    constants: dict[str, Any] = {
        **NORMALIZATION,
        "gamma": np.array([gamma, -0.4], np.float32),
        "k": RANDOM.standard_normal((2, 2, 1, 1)).astype(np.float32),
        "b": np.array([0.5, -0.25], np.float32),
        "v_q": np.array([[[[-128]], [[127]]], [[[30]], [[-127]]]], np.int8),
        "per": np.array([0.02, 0.03], np.float32),
        "zeros": np.zeros(2, np.int8),
    }
    model = network(f"x -> a @ s \n {weights} \n {NORMALIZED}", **constants)
    (finding,) = mended_alike(model, "TQ204", tolerance=1e-5)
    assert finding.tensors == ("y",) and finding.fixable
    assert "BatchNormalization" not in operators(model) and operators(model).count("Conv") == 1
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and qdq.reading.is_constant(node.inputs[0]):
            integers = present(qdq.reading.constant(node.inputs[0]))
            signs = np.sign([gamma, -0.4]).reshape(2, 1, 1, 1)
            assert np.array_equal(integers, constants["v_q"] * signs)
            assert (present(qdq.reading.scale(node)) > 0).all()


def test_weights_that_two_convolutions_share_are_folded_for_one_alone() -> None:
    body = f"x -> a @ s \n c = Conv (a, w) \n n = {NORMALIZED[4:]} \n other = Conv (a, w) \n y = Add (n, other)"
    model = network(body, **NORMALIZATION)
    mended_alike(model, "TQ204", tolerance=1e-5)
    assert np.array_equal(stored(model.graph.initializers["w_q"]), W_Q)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (NORMALIZED.replace("(c,", "<training_mode = 1> (c,").replace("y =", "y, m, v ="), "evaluation mode"),
        (NORMALIZED.replace("mean", "moving"), "not constants"),
        (NORMALIZED.replace("var)", "negative)"), "variance"),
        (NORMALIZED.replace("gamma", "tiny"), "too small"),
    ],
)
def test_what_cannot_be_folded_is_found_and_says_why(body: str, word: str) -> None:
    constants = {"negative": np.array([-1, 1], np.float32), "tiny": np.array([1e-38, 1], np.float32), **NORMALIZATION}
    moving = "flat = Flatten <axis = 4> (x) \n moving = ReduceMax <axes = [0, 2, 3], keepdims = 0> (x)"
    model = network(f"x -> a @ s \n {moving} \n c = Conv (a, w) \n {body}", **constants)
    (finding,) = found(model, "TQ204")
    assert not finding.fixable and word in finding.message
    assert rules.fix(model, [finding]) == 0


def test_the_integer_that_has_no_opposite_keeps_its_normalization() -> None:
    weights = np.array([[[[1]], [[2]]], [[[-128]], [[3]]]], np.int8)
    body = f"x -> a @ s \n v = DequantizeLinear (v_q, ws, zero) \n c = Conv (a, v) \n {NORMALIZED}"
    (finding,) = found(network(body, v_q=weights, **NORMALIZATION), "TQ204")
    assert not finding.fixable and "-128" in finding.message


@pytest.mark.parametrize(
    "body",
    [
        f"x -> a @ s \n c = Conv (a, w) \n n = {NORMALIZED[4:]} \n y = Mul (n, c)",
        f"c = Relu (x) \n {NORMALIZED}",
    ],
)
def test_a_normalization_that_stands_on_its_own_stays(body: str) -> None:
    assert found(network(body, **NORMALIZATION), "TQ204") == []


def test_pairs_of_one_scale_in_a_row_become_one() -> None:
    model = network("x -> a @ s \n a -> b @ s \n b -> c @ s \n y = Conv (c, w)")
    findings = mended_alike(model, "TQ211")
    assert [one.tensors for one in findings] == [("a",), ("b",)]
    assert [one.removes for one in findings] == [("b_q",), ("c_q",)]
    assert operators(model).count("QuantizeLinear") == 1 and operators(model).count("DequantizeLinear") == 2


def test_a_first_pair_with_other_readers_stays_for_them() -> None:
    model = network("x -> a @ s \n a -> b @ s \n u = Conv (b, w) \n y = Mul (u, a)")
    mended_alike(model, "TQ211")
    assert operators(model).count("QuantizeLinear") == 1 and operators(model).count("DequantizeLinear") == 3
    assert found(network("x -> a @ s \n a -> b @ t \n y = Conv (b, w)"), "TQ211") == []


@pytest.mark.parametrize(
    ("more", "tensors", "removes"),
    [
        ("x -> b @ t", ("x",), ("b_q",)),
        ("b = QuantizeLinear (x, t, zero)", ("x",), ("b",)),
        ("v = DequantizeLinear (v_q, ws, zero)", ("v_q",), ()),
        ("b = DequantizeLinear (a_q, s, zero)", ("x",), ()),
        ("a -> b @ t", ("a",), ("b_q",)),
    ],
)
def test_what_leads_nowhere_goes(more: str, tensors: tuple[str, ...], removes: tuple[str, ...]) -> None:
    body = "x -> a @ s \n y = Conv (a, w)"
    model = network(f"{body} \n {more}", v_q=W_Q)
    (finding,) = mended_alike(model, "TQ212")
    assert (finding.tensors, finding.removes) == (tensors, removes)
    assert sorted(operators(model)) == sorted(operators(network(body)))
    assert "v_q" not in model.graph.initializers and codes(model) == []


def test_integers_that_are_read_as_values_are_found_and_left() -> None:
    model = network("q = QuantizeLinear (x, s, zero) \n y = Cast <to = 1> (q)")
    (finding,) = found(model, "TQ212")
    assert finding.tensors == ("x",) and not finding.fixable and "Cast 'y'" in finding.message
    wanted = [
        ("q = QuantizeLinear (x, s, zero) \n m = MaxPool <kernel_shape = [2, 2]> (q) \n"
         "y = DequantizeLinear (m, s, zero)", "float[1,2,h,w] y"),
        ("y = QuantizeLinear (x, s, zero)", "int8[1,2,6,6] y"),
        ("q = QuantizeLinear (x, s, zero) \n y = ConvInteger (q, w_q)", "int32[1,2,6,6] y"),
    ]  # fmt: skip
    for body, outputs in wanted:
        assert found(network(body, outputs), "TQ212") == []


def test_of_two_quantized_inputs_of_a_sum_the_convolution_that_fuses_goes_without() -> None:
    text = """network (float[1,2,4,4] x) => (float[1,2,4,4] y)
    <float s = {0.1}, float t = {0.2}, float u = {0.3}, float w_s = {0.01}, int8 z = {0},
     int8[2,2,1,1] w_q = {1, 2, 3, 4}>
    { x_q = QuantizeLinear (x, s, z)  x_dq = DequantizeLinear (x_q, s, z)  w = DequantizeLinear (w_q, w_s, z)
      skip = Conv (x_dq, w)  skip_q = QuantizeLinear (skip, t, z)  skip_dq = DequantizeLinear (skip_q, t, z)
      main = Conv (x_dq, w)  main_q = QuantizeLinear (main, u, z)  main_dq = DequantizeLinear (main_q, u, z)
      sum = Add (skip_dq, main_dq)  active = Relu (sum)
      a_q = QuantizeLinear (active, s, z)  a_dq = DequantizeLinear (a_q, s, z)  y = Conv (a_dq, w) }"""
    model = graph(text)
    assert predict.predict(model, "explicit").signals.conversions == 4
    [finding] = found(model, "TQ203")
    assert finding.tensors == ("main",) and finding.removes == ("main_q",)
    mend(model, "TQ203")
    assert found(model, "TQ203") == [] and rules.lint(model) == ()
    assert predict.predict(model, "explicit").signals.conversions == 1
