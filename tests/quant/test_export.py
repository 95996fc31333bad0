"""Export: the file computes what the fake-quantized network computes, and speaks in module paths."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.quant.quant_nets import Fork, noise
from trtq import qdq
from trtq.backends import runner
from trtq.config import QuantSpec
from trtq.ptq.weights import Weights
from trtq.quant import Quantized, calibrate, export, insert, tie
from trtq.quant.export import native_fake_quant

EXAMPLE = torch.zeros(1, 3, 16, 16)


@pytest.fixture(scope="module")
def quantized() -> Quantized:
    torch.manual_seed(0)
    made = insert(Fork(), QuantSpec("max"), EXAMPLE)
    tie(made, EXAMPLE, 17)
    calibrate(made, noise(), QuantSpec("max"), batch=4)
    return made


@pytest.mark.parametrize("weights", ["int8", "float"])
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_the_file_runs_like_the_network(quantized: Quantized, tmp_path: Path, weights: Weights, opset: int) -> None:
    target = tmp_path / "net.onnx"
    export(quantized.module, EXAMPLE, target, opset=opset, weights=weights)
    onnx.checker.check_model(str(target), full_check=True)
    x = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)
    with torch.no_grad(), native_fake_quant():
        expected = quantized.module(torch.from_numpy(x)).numpy()
    measured = runner("ort").load(target).run({"images": x})["output_0"]
    # One rounding may flip where sums differ in the last bit; it must stay rounding noise.
    sqnr_db = 10 * np.log10((expected**2).sum() / max(((expected - measured) ** 2).sum(), 1e-30))
    assert sqnr_db > 30
    assert onnx.load(target).opset_import[0].version == opset


def test_int8_weights_are_a_quarter_and_nothing_float_is_left_of_them(quantized: Quantized, tmp_path: Path) -> None:
    export(quantized.module, EXAMPLE, tmp_path / "net.onnx", opset=17)
    model = onnx.load(tmp_path / "net.onnx")
    types = {one.name: one.data_type for one in model.graph.initializer if "weight" in one.name and "_int8" in one.name}
    assert len(types) == 9
    assert set(types.values()) == {onnx.TensorProto.INT8}
    assert not any(one.name.endswith(".weight") for one in model.graph.initializer)


def test_names_are_module_paths_and_unique(quantized: Quantized, tmp_path: Path) -> None:
    export(quantized.module, EXAMPLE, tmp_path / "net.onnx", opset=17)
    names = [node.name for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert len(set(names)) == len(names)
    assert {"after_concat.0/Conv", "after_concat.0/Relu", "after_chain.input_quantizer/QuantizeLinear"} <= set(names)
    assert {"after_pool.0/Add", "after_pool.0.residual_quantizer/QuantizeLinear"} <= set(names)
    assert not any(node.op_type in ("Constant", "Identity") for node in onnx.load(tmp_path / "net.onnx").graph.node)


def test_metadata_travels_as_json_and_bytes_repeat(quantized: Quantized, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export(quantized.module, EXAMPLE, tmp_path / name, opset=17, metadata={"decode": {"kind": "none"}})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert json.loads(qdq.load(tmp_path / "a.onnx").metadata_props["trtq.decode"]) == {"kind": "none"}
