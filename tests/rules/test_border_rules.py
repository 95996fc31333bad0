"""Placement rules at the borders: pools, pads and the outputs of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from tests.installed import HAS_RTX
from tests.rules.placed import OUTPUT, POOL, X, codes, mended_alike, network
from tests.rules.rule_graphs import found, mend, operators, run
from trtq import qdq
from trtq.backends import BuildSpec, rtx

SPP = (
    f"p1 = {POOL} ({{0}}) \n p2 = {POOL} ({{1}}) \n j = Concat <axis = 0> (a, p1, p2) \n j -> b @ s \n y = Conv (b, w)"
)


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        (f"x -> a @ s \n p1 = {POOL} (a) \n p2 = {POOL} (p1) \n p2 -> b @ s \n y = Conv (b, w)", ("x",)),
        ("x -> a @ s \n" + SPP.format("a", "a"), ("x",)),
        ("x -> a @ s \n" + SPP.format("a", "p1"), ("x",)),
        (f"x -> a @ s \n u = Conv (a, w) \n p1 = {POOL} (a) \n p1 -> b @ s \n v = Conv (b, w) \n p2 = {POOL} (p1)\n"
         "p2 -> c @ s \n z = Conv (c, w) \n uv = Add (u, v) \n y = Add (uv, z)", ("x",)),
    ],
)  # fmt: skip
def test_pools_whose_results_are_quantized_further_behind_read_the_tensor_itself(
    body: str, tensors: tuple[str, ...], tmp_path: Path
) -> None:
    model = network(body, "float[n,2,6,6] y")
    before = pool_types(model, tmp_path)
    (finding,) = mended_alike(model, "TQ205")
    assert finding.tensors == tensors and finding.safety == "lossless"
    assert "TQ206" not in codes(model) and found(model, "TQ205") == []
    assert "float32" in before and set(pool_types(model, tmp_path)) == {"int8"}


def test_a_chain_of_pools_with_a_pair_each_is_mended_at_once(tmp_path: Path) -> None:
    """The last pool's result is quantized behind the Concat alone; without its pair the one before is like it."""
    chain = f"p0 = {POOL} (a) \n p0 -> b @ s \n p1 = {POOL} (b) \n p1 -> c @ s \n p2 = {POOL} (c)"
    model = network(f"x -> a @ s \n {chain} \n j = Concat <axis = 0> (b, c, p2) \n j -> d @ s \n y = Conv (d, w)",
                    "float[n,2,6,6] y")  # fmt: skip
    (finding,) = mended_alike(model, "TQ205")
    assert finding.tensors == ("x", "p0", "p1") and finding.removes == ("a_q", "b_q", "c_q")
    assert set(pool_types(model, tmp_path)) == {"int8"}


def pool_types(model: ir.Model, folder: Path) -> list[str]:
    """What TensorRT-RTX's pools read."""
    if not HAS_RTX:
        pytest.skip("TensorRT-RTX is not installed (pip install trtq[rtx])")
    qdq.save(model, folder / "model.onnx")
    layers = rtx.build(BuildSpec(folder / "model.onnx"), folder / "model.plan").layers
    assert layers is not None
    return [str(layer.inputs[0].dtype) for layer in layers.layers if layer.kind == "maxpool"]


@pytest.mark.parametrize(
    "body",
    [
        f"x -> a @ s \n p = {POOL} (a) \n p -> b @ s \n y = Conv (b, w)",
        f"x -> a @ s \n p = {POOL} (a) \n q = {POOL} (p) \n y = Conv (q, w)",
        f"x -> a @ s \n p = {POOL} (a) \n p -> b @ s \n p -> c @ s \n u = Conv (b, w) \n v = Conv (c, w) \n"
        "y = Add (u, v)",
        f"x -> a @ s \n p = {POOL} (a) \n p -> b @ s \n q = {POOL} (b) \n q -> c @ s \n y = Conv (c, w)",
        f"p = {POOL} (x) \n q = {POOL} (p) \n q -> c @ s \n y = Conv (c, w)",
    ],
)  # fmt: skip
def test_other_pools_with_a_pair_in_front_run_in_int8_as_they_are(body: str, tmp_path: Path) -> None:
    model = network(body)
    assert found(model, "TQ205") == []
    assert set(pool_types(model, tmp_path)) == {"int8"}


def test_a_pool_that_something_reads_in_float_or_in_another_scale_is_no_matter_of_this_rule() -> None:
    two = f"x -> a @ s \n p = {POOL} (a) \n q = {POOL} (p) \n q -> c @ {{}} \n u = Conv (c, w) \n"
    assert found(network(two.format("t") + "y = Sigmoid (u)"), "TQ205") == []
    assert found(network(two.format("s") + "y = Add (u, p)"), "TQ205") == []


@pytest.mark.parametrize(
    ("pad", "opset", "convolution", "pads"),
    [
        ("Pad (x, amounts)", 17, "y = Conv (d, wide)", [1, 0, 1, 2]),
        ("Pad (x, amounts, nothing)", 17, "y = Conv <pads = [1, 1, 1, 1]> (d, wide)", [2, 1, 2, 3]),
        ("Pad (x, some, nothing, axes)", 18, "y = Conv <auto_pad = \"VALID\"> (d, wide)", [1, 0, 1, 2]),
        ("Pad (x, amounts)", 17, "u = Conv (d, wide) \n v = Conv (d, wide) \n y = Add (u, v)", [1, 0, 1, 2]),
    ],
)  # fmt: skip
def test_a_convolution_takes_its_pad_over(pad: str, opset: int, convolution: str, pads: list[int]) -> None:
    constants: dict[str, npt.ArrayLike] = {
        "amounts": np.array([0, 0, 1, 0, 0, 0, 1, 2]),
        "some": np.array([1, 0, 1, 2]),
        "axes": np.array([2, -1]),
        "nothing": np.float32(0),
    }
    model = network(f"p = {pad} \n p -> d @ s \n {convolution}", OUTPUT, opset, **constants)
    (finding,) = mended_alike(model, "TQ207")
    assert finding.tensors == ("p",) and finding.safety == "lossless"
    assert "Pad" not in operators(model)
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    assert all(list(node.attributes["pads"].as_ints()) == pads for node in convolutions)


def test_other_readers_of_a_padded_tensor_keep_it() -> None:
    body = "p = Pad (x, amounts) \n p -> d @ s \n u = Conv (d, wide) \n g = GlobalMaxPool (d) \n y = Mul (u, g)"
    model = network(body, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    mended_alike(model, "TQ207")
    assert operators(model).count("Pad") == 1 and operators(model).count("QuantizeLinear") == 2


def test_a_convolution_that_computes_its_padding_is_found_and_left() -> None:
    body = 'p = Pad (x, amounts) \n p -> d @ s \n y = Conv <auto_pad = "SAME_UPPER"> (d, wide)'
    (finding,) = found(network(body, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1])), "TQ207")
    assert not finding.fixable and "auto_pad" in finding.message


@pytest.mark.parametrize(
    ("pad", "amounts"),
    [
        ('Pad <mode = "reflect"> (x, amounts)', [0, 0, 1, 1, 0, 0, 1, 1]),
        ("Pad (x, amounts, one)", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("Pad (x, amounts)", [0, 0, -1, 0, 0, 0, 1, 1]),
    ],
)
def test_a_pad_that_no_convolution_can_do_stays(pad: str, amounts: list[int]) -> None:
    body = f"p = {pad} \n p -> d @ s \n y = Conv (d, wide)"
    assert found(network(body, amounts=np.array(amounts), one=np.float32(1)), "TQ207") == []


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        ("c -> y @ s", ["c"]),
        ("c -> d @ s \n y = Reshape (d, dims)", ["c"]),
        ("c -> d @ s \n r = Reshape (d, dims) \n r -> y @ t", ["c", "r"]),
        ("c -> d @ s \n r = Concat <axis = 0> (d, x) \n r -> y @ s", ["c", "r"]),
        ("e = Sigmoid (c) \n i = Identity (e) \n i -> y @ s", ["i"]),
    ],
)
def test_a_pair_in_front_of_an_output_goes_and_the_output_keeps_its_name(body: str, tensors: list[str]) -> None:
    model = network(f"x -> a @ s \n c = Conv (a, w) \n {body}", "float[n,2,h,w] y", dims=np.array([1, 2, 6, 6]))
    findings = mended_alike(model, "TQ210", tolerance=0.1)
    assert [one.tensors for one in findings] == [(name,) for name in tensors]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert operators(model).count("QuantizeLinear") == 1


def test_a_tensor_that_is_an_output_itself_gives_a_copy_to_the_other() -> None:
    model = network("x -> a @ s \n c = Conv (a, w) \n c -> y @ s", "float[1,2,6,6] c, float[1,2,6,6] y")
    mend(model, "TQ210")
    assert [value.name for value in model.graph.outputs] == ["c", "y"]
    c, y = run(model, x=X)
    assert np.array_equal(c, y)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("x -> y @ s", "float[1,2,6,6] y"),
        ("c = Sigmoid (x) \n c -> z @ s \n y = Conv (z, w)", "float[1,2,6,6] y, float[1,2,6,6] z"),
        ("c = Sigmoid (x) \n c -> z @ s \n c -> d @ s \n y = Conv (d, w)", "float[1,2,6,6] y, float[1,2,6,6] z"),
        ("c = Sigmoid (x) \n y = QuantizeLinear (c, s, zero)", "int8[1,2,6,6] y"),
    ],
)
def test_an_output_that_is_needed_in_int8_or_only_passed_on_stays(body: str, outputs: str) -> None:
    assert found(network(body, outputs), "TQ210") == []
