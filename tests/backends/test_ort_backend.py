"""ONNX Runtime: optimize, run, convert to FP16."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtq import backends
from trtq.backends import BuildSpec
from trtq.errors import ConfigError, ModelError

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install trtq[ort])")
ort = pytest.importorskip("trtq.backends.ort")

REPOSITORY = Path(__file__).resolve().parents[2]
FEED = np.random.default_rng(1).uniform(-1, 1, (1, 8, 16, 16)).astype(np.float32)


def save(path: Path, *, quantized: bool) -> Path:
    random = np.random.default_rng(0)
    initializers = [
        numpy_helper.from_array(random.normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array(0.02, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["wq"], name="weight_quantize"),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"], name="weight_dequantize"),
    ] * quantized
    inputs = ["d", "wd"] if quantized else ["x", "w"]
    nodes += [
        helper.make_node("Conv", inputs, ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 16, 16])],
        initializers if quantized else initializers[:1],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_engine_in_another_folder_finds_its_external_weights(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path / "net.onnx", quantized=False))
    (tmp_path / "given").mkdir()
    source = tmp_path / "given" / "net.onnx"
    onnx.save(model, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    plan = backends.builder("ort").build(BuildSpec(source), tmp_path / "built" / "net.ort.onnx").plan
    expected = backends.runner("ort").load(source).run({"x": FEED})["y"]
    np.testing.assert_allclose(backends.runner("ort").load(plan).run({"x": FEED})["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quantized", [False, True])
def test_build_is_deterministic_and_equal(tmp_path: Path, quantized: bool) -> None:
    source = save(tmp_path / "net.onnx", quantized=quantized)
    first = backends.builder("ort").build(BuildSpec(source), tmp_path / "1.ort.onnx")
    script = (
        "import sys; from pathlib import Path; from trtq.backends import BuildSpec, ort\n"
        "ort.build(BuildSpec(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "2.ort.onnx")]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert first.plan.read_bytes() == (tmp_path / "2.ort.onnx").read_bytes()
    assert first.layers is None
    assert first.plan_bytes == first.plan.stat().st_size
    plain = backends.runner("ort").load(source).run({"x": FEED})
    optimized = backends.runner("ort").load(first.plan).run({"x": FEED})
    np.testing.assert_allclose(optimized["y"], plain["y"], atol=1e-5)


def test_int8_sums_are_exact(tmp_path: Path) -> None:
    session = ort.load(save(tmp_path / "net.onnx", quantized=True))
    weight = numpy_helper.to_array(onnx.load(tmp_path / "net.onnx").graph.initializer[0])
    integers = np.clip(np.round(weight / np.float32(0.02)), -128, 127)
    padded = np.pad(np.clip(np.round(FEED / np.float32(0.02)), -128, 127), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.maximum(np.einsum("nchwij,ocij->nohw", windows, integers) * 0.02 * 0.02, 0)
    np.testing.assert_allclose(session.run({"x": FEED})["y"], expected, atol=1e-4)


def test_session_describes_itself(tmp_path: Path) -> None:
    session = ort.load(save(tmp_path / "net.onnx", quantized=False), threads=2)
    assert session.inputs == (backends.TensorSpec("x", (-1, 8, 16, 16), "float32"),)
    assert session.outputs[0].name == "y"
    assert session.run({"x": np.repeat(FEED, 3, axis=0)})["y"].shape == (3, 8, 16, 16)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"wants inputs \['x'\]"),
        ({"y": FEED}, r"was given \['y'\]"),
        ({"x": FEED.astype(np.float64)}, "float64"),
        ({"x": FEED[0]}, r"\[8, 16, 16\]"),
        ({"x": FEED[:, :4]}, r"\[1, 4, 16, 16\]"),
    ],
)
def test_feeds_that_do_not_fit(tmp_path: Path, feeds: dict[str, np.ndarray], message: str) -> None:
    session = ort.load(save(tmp_path / "net.onnx", quantized=False))
    with pytest.raises(ModelError, match=message):
        session.run(feeds)


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x08\x08"])
def test_files_that_cannot_be_loaded(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    for use in (
        ort.load,
        lambda file: ort.build(BuildSpec(file), tmp_path / "out"),
    ):
        with pytest.raises(ModelError, match=r"^[^\n]*broken\.onnx: [^\n]*$"):
            use(path)
    assert not (tmp_path / "out").exists()


def test_unknown_back_end() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ort'"):
        backends.builder("orrt")
    with pytest.raises(ConfigError, match=r"known are .*ort"):
        backends.runner("cuda")
