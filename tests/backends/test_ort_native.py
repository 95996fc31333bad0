"""ONNX Runtime's native form: integer kernels for what the file quantizes, its weights untouched, its numbers near."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install trtq[ort])")

from tests.backends import ort_networks as nets
from trtq import backends, qdq
from trtq.backends import BuildSpec, ort, ort_native
from trtq.config import Mode
from trtq.errors import ConfigError, DataError, ModelError
from trtq.machine import machine

SOURCE = "net.onnx"
REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_SCRIPT = (
    "import sys; from pathlib import Path; from trtq.backends import BuildSpec, ort_native\n"
    "source, batches, plan = map(Path, sys.argv[1:])\n"
    "ort_native.build(BuildSpec(source, mode='qat', calibration_batches=batches), plan)"
)
# Five bits of eight: what rounding a few more tensors may cost a network of random weights.
LEAST_SQNR_DB = 28.0


def native(folder: Path, source: Path, mode: Mode = "qat") -> onnx.ModelProto:
    """Build the native form; return the plan."""
    batches = nets.save_batches(folder / "batches")
    spec = BuildSpec(source, mode=mode, calibration_batches=batches)
    engine = backends.builder("ort-native").build(spec, folder / ort_native.PLAN_NAME)
    assert engine.plan_bytes == engine.plan.stat().st_size
    return onnx.load(engine.plan)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Q/DQ network, its calibration batches and its plan, for tests that only read."""
    folder = tmp_path_factory.mktemp("native")
    native(folder, nets.quantized_network(folder / SOURCE, folder / "batches"))
    return folder


def counts(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    return 10 * float(np.log10(np.square(reference).sum() / np.square(reference - other).sum()))


def run(path: Path, runner: str, batch: np.ndarray) -> np.ndarray:
    return backends.runner(runner).load(path).run({"x": batch})["y"]


def test_what_the_file_quantizes_and_all_between_runs_in_integers(built: Path) -> None:
    found = counts(onnx.load(built / ort_native.PLAN_NAME))
    assert found["QLinearConv"] == nets.QUANTIZED_CONVOLUTIONS
    assert found["Conv"] == 1  # the one that the file leaves float
    for operator in ("LeakyRelu", "Concat", "Sigmoid", "Mul", "Add"):
        assert found[f"QLinear{operator}"] == 1
        assert not found[operator]
    assert not found["Relu"]
    assert not found["Clip"]
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1


def test_weights_keep_their_integers_and_an_image_gets_channels_of_zeros(built: Path) -> None:
    given = constants(onnx.load(built / SOURCE))
    plan = onnx.load(built / ort_native.PLAN_NAME)
    stored = constants(plan)
    convolutions = [node for node in plan.graph.node if node.op_type == "QLinearConv"]
    for name, node in zip(("w1", "w2", "w3", "w4"), convolutions, strict=True):
        integers, scales, biases = stored[node.input[3]], stored[node.input[4]], stored[node.input[8]]
        assert biases.dtype == np.int32
        np.testing.assert_array_equal(scales, given[f"{name}_scale"])
        np.testing.assert_array_equal(integers[:, : given[f"{name}_int8"].shape[1]], given[f"{name}_int8"])
    first = stored[convolutions[0].input[3]]
    assert first.shape[1] == 4
    assert not first[:, 3].any()


def test_activations_are_uint8_and_one_sided_where_their_range_is(built: Path) -> None:
    plan = onnx.load(built / ort_native.PLAN_NAME)
    stored = constants(plan)
    zero_points = [stored[node.input[7]] for node in plan.graph.node if node.op_type == "QLinearConv"]
    assert all(one.dtype == np.uint8 for one in zero_points)
    relu, leaky, silu, clipped = (int(one) for one in zero_points)
    assert relu == clipped == 0
    assert 0 < leaky < 255
    assert 0 < silu < 255


def test_what_concat_joins_has_one_scale(built: Path) -> None:
    plan = onnx.load(built / ort_native.PLAN_NAME)
    stored = constants(plan)
    [joined] = [node for node in plan.graph.node if node.op_type == "QLinearConcat"]
    scales = [float(stored[name]) for name in (joined.input[0], *joined.input[3::3])]
    assert len(scales) == 3
    assert len(set(scales)) == 1


def test_a_scale_in_the_file_bounds_the_range(tmp_path: Path) -> None:
    source = nets.quantized_network(tmp_path / SOURCE, tmp_path / "batches")
    model = onnx.load(source)
    [scale] = [one for one in model.graph.initializer if one.name == "r1_scale"]
    halved = numpy_helper.to_array(scale) / 2
    scale.CopyFrom(numpy_helper.from_array(halved, "r1_scale"))
    onnx.save(model, source)
    plan = native(tmp_path, source)
    first = next(node for node in plan.graph.node if node.op_type == "QLinearConv")
    assert constants(plan)[first.input[6]] == pytest.approx(127 * halved / 255)


def test_the_numbers_stay_near_the_file_as_exported(built: Path) -> None:
    unseen = nets.images(8, seed=9)
    exported, fused = run(built / SOURCE, "ort", unseen), run(built / ort_native.PLAN_NAME, "ort-native", unseen)
    assert sqnr_db(exported, fused) > LEAST_SQNR_DB
    assert not np.array_equal(exported, fused)


def test_two_builds_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    paths = (built / SOURCE, built / "batches", tmp_path / "2.onnx")
    command = [sys.executable, "-c", BUILD_SCRIPT, *map(str, paths)]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert (built / ort_native.PLAN_NAME).read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_a_float_network_is_quantized_whole_in_mode_ptq_and_optimized_as_it_is_in_fp32(tmp_path: Path) -> None:
    source = nets.float_network(tmp_path / "net.onnx")
    assert counts(native(tmp_path, source, "ptq"))["QLinearConv"] == nets.QUANTIZED_CONVOLUTIONS + 1
    unseen = nets.images(2, seed=9)
    assert sqnr_db(run(source, "ort", unseen), run(tmp_path / ort_native.PLAN_NAME, "ort-native", unseen)) > 25
    ort_native.build(BuildSpec(source, mode="fp32"), tmp_path / "float.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "float.onnx", "ort-native", unseen), run(source, "ort", unseen), rtol=1e-4, atol=1e-5
    )


def test_a_clip_that_zero_is_outside_of_is_kept(tmp_path: Path) -> None:
    source = nets.quantized_network(tmp_path / "net.onnx", tmp_path / "batches", lowest=0.75)
    native(tmp_path, source)
    unseen = nets.images(4, seed=9)
    assert (
        sqnr_db(run(source, "ort", unseen), run(tmp_path / ort_native.PLAN_NAME, "ort-native", unseen)) > LEAST_SQNR_DB
    )


def test_a_bias_that_int32_cannot_hold_at_the_weights_scale_is_not_cut(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).normal(0, 0.25, nets.SHAPES["w2"])
    weights[5] *= 1e-13  # a dead channel, which batch normalization left its bias
    bias = np.full(16, 0.5)
    source = nets.quantized_network(tmp_path / "net.onnx", tmp_path / "batches", w2=weights, b2=bias)
    native(tmp_path, source)
    unseen = nets.images(4, seed=9)
    assert (
        sqnr_db(run(source, "ort", unseen), run(tmp_path / ort_native.PLAN_NAME, "ort-native", unseen)) > LEAST_SQNR_DB
    )


def test_ranges_from_elsewhere_decide_the_scales(tmp_path: Path) -> None:
    model = ort_native.prepared(nets.float_network(tmp_path / "net.onnx"))
    names = [value.name for node in model.graph for value in node.outputs] + ["x"]
    ort_native.write(model, dict.fromkeys(map(str, names), (-1.0, 3.0)), tmp_path / "native.onnx")
    written = onnx.load(tmp_path / "native.onnx")
    stored = constants(written)
    activations = [node for node in written.graph.node if node.op_type == "QuantizeLinear"]
    assert len(activations) > 5
    for node in activations:
        assert stored[node.input[1]] == pytest.approx(4 / 255)
        assert stored[node.input[2]] == 64


def test_metadata_goes_with_the_network(tmp_path: Path) -> None:
    source = nets.quantized_network(tmp_path / "net.onnx", tmp_path / "batches")
    model = onnx.load(source)
    onnx.helper.set_model_props(model, {"trtq.decode": "{}"})
    onnx.save(model, source)
    native(tmp_path, source)
    assert qdq.load(tmp_path / ort_native.PLAN_NAME).metadata_props["trtq.decode"] == "{}"


def test_without_images_a_quantized_network_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give images with --calibration"):
        ort_native.build(BuildSpec(built / SOURCE, mode="qat"), tmp_path / "plan.onnx")
    assert not (tmp_path / "plan.onnx").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda batch: np.where(batch > 0.99, np.nan, batch), "NaN or infinity"),
        (lambda batch: batch[:, :2], r"takes float32 \[-1, 3, 16, 16\]"),
        (lambda batch: batch.astype(np.float64), "holds float64"),
        (lambda batch: batch[:0], r"holds float32 \[0, 3, 16, 16\]"),
    ],
)
def test_unusable_batches_are_named(tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    source = nets.quantized_network(tmp_path / "net.onnx", tmp_path / "batches")
    np.save(tmp_path / "batches" / "1.npy", spoil(nets.images(2)))
    with pytest.raises(DataError, match=message) as raised:
        ort_native.build(
            BuildSpec(source, mode="qat", calibration_batches=tmp_path / "batches"), tmp_path / "plan.onnx"
        )
    assert "1.npy" in str(raised.value)


def test_a_folder_of_no_batches_and_a_file_that_is_none_are_named(built: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    spec = BuildSpec(built / SOURCE, mode="qat", calibration_batches=empty)
    with pytest.raises(DataError, match="holds no calibration batches"):
        ort_native.build(spec, tmp_path / "plan.onnx")
    (empty / "0.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match="not a NumPy array"):
        ort_native.build(spec, tmp_path / "plan.onnx")


def test_a_network_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    source = nets.float_network(tmp_path / "net.onnx", b2=np.full(16, np.inf))
    with pytest.raises(ModelError, match="is not finite on the calibration batch"):
        native(tmp_path, source, "ptq")


def test_uint8_quantizers_are_refused(tmp_path: Path) -> None:
    source = nets.quantized_network(tmp_path / "net.onnx", tmp_path / "batches")
    model = onnx.load(source)
    next(one for one in model.graph.initializer if one.name == "zero").data_type = TensorProto.UINT8
    onnx.save(model, source)
    with pytest.raises(ModelError, match="not quantized to symmetric int8"):
        native(tmp_path, source)


@pytest.mark.parametrize(
    ("platform", "instruction_sets", "saturates"),
    [
        ("Linux-6.1-x86_64", ("avx2",), True),
        ("Windows-10-AMD64", (), True),
        ("Linux-6.1-x86_64", ("avx2", "avx512_vnni"), False),
        ("Linux-6.1-x86_64", ("avx2", "avx_vnni"), False),
        ("Linux-5.10-tegra-aarch64", ("asimd",), False),
    ],
)
def test_processors_whose_sums_saturate(platform: str, instruction_sets: tuple[str, ...], saturates: bool) -> None:
    here = dataclasses.replace(machine(), platform=platform, instruction_sets=instruction_sets)
    assert ort.sums_saturate(here) is saturates


def test_kernels_of_processors_without_vnni_compute_the_same(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where VNNI is there, both kernels are exact; where it is not, the slower one is taken in any case."""
    bright = np.ones((1, 3, nets.SIZE, nets.SIZE), np.float32)
    usual = run(built / ort_native.PLAN_NAME, "ort-native", bright)
    monkeypatch.setattr(ort, "sums_saturate", lambda _: True)
    np.testing.assert_array_equal(run(built / ort_native.PLAN_NAME, "ort-native", bright), usual)
