from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import present
from tests.ir_values import producer, stored
from trtq import backends, qdq, rules
from trtq.config import Calibrator
from trtq.errors import ConfigError, DataError, ModelError
from trtq.predict import predict
from trtq.ptq import activations, collect_max, insert, observe, quantize_file
from trtq.qdq import reading

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "producers" / "fork-float.onnx"
SQNR_FLOOR_DB = 20


def network(batch: int | str = "N", *, dead: bool = False, opset: int = 17) -> onnx.ModelProto:
    """A residual block, a Concat of both its sides, a shared MatMul and a Gemm in both layouts; opset 17."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(size=(8, 3, 3, 3)) / 5,
        "w2": random.normal(size=(8, 8, 3, 3)) / 8,
        "w3": random.normal(size=(8, 16, 1, 1)) / 4,
        "wm": random.normal(size=(8, 6)) / 3,
        "wg": random.normal(size=(5, 6)) / 3,
        "wh": random.normal(size=(6, 5)) / 3,
    }
    weights["w2"][3] = 0
    if dead:
        weights["w1"] *= 0
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv1", pads=pads),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=pads),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r2"], name="relu2"),
        helper.make_node("Concat", ["r1", "r2"], ["cat"], axis=1, name="concat"),
        helper.make_node("Conv", ["cat", "w3"], ["c3"], name="conv3"),
        helper.make_node("GlobalAveragePool", ["c3"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "wm"], ["m"], name="matmul"),
        helper.make_node("Gemm", ["m", "wg"], ["y1"], name="gemm_transposed", transB=1),
        helper.make_node("Gemm", ["m", "wh"], ["y2"], name="gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 12, 12])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 5]) for name in ("y1", "y2")],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def batches(shape: tuple[int, ...], count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(1)
    for _ in range(count):
        yield random.uniform(size=shape).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    onnx.save(network(), path)
    return path


def worst_sqnr_db(reference: Path, quantized: Path, images: list[np.ndarray]) -> float:
    sessions = [backends.runner("ort").load(path) for path in (reference, quantized)]
    feed = sessions[0].inputs[0].name
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for image in images:
        wanted, got = (session.run({feed: image}) for session in sessions)
        for name, value in wanted.items():
            signal[name] = signal.get(name, 0) + float(np.sum(np.square(value)))
            noise[name] = noise.get(name, 0) + float(np.sum(np.square(value - got[name])))
    assert all(value > 0 for value in noise.values())
    return min(float(10 * np.log10(signal[name] / noise[name])) for name in signal)


def assert_nothing_to_mend(path: Path) -> None:
    """Lint finds nothing, and unify changes nothing."""
    model = qdq.load(path)
    assert [f"{one.code} {one.message}" for one in rules.lint(model)] == []
    assert qdq.groups(model) and qdq.unify(model).edits == ()


def test_maxima_are_those_of_numpy_whatever_the_batch(source: Path, tmp_path: Path) -> None:
    images = list(batches((3, 3, 12, 12), 4))
    everything = onnx.load(source)
    for name in ("r1", "c3"):
        everything.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(everything, tmp_path / "all.onnx")
    session = backends.runner("ort").load(tmp_path / "all.onnx")
    outputs = [session.run({"image": image}) for image in images]
    expected = {name: max(float(np.abs(one[name]).max()) for one in outputs) for name in ("r1", "c3")}
    expected["image"] = max(float(np.abs(image).max()) for image in images)
    tensors = ("c3", "image", "r1")
    before = source.read_bytes()
    found = collect_max(source, tensors, images)
    assert tuple(found) == tensors
    assert found == pytest.approx(expected, rel=1e-6)
    onnx.save(network(batch=2), tmp_path / "fixed.onnx")
    assert collect_max(tmp_path / "fixed.onnx", tensors, images) == pytest.approx(expected, rel=1e-6)
    assert source.read_bytes() == before


def test_memory_does_not_grow_with_the_number_of_images(source: Path) -> None:
    alive = 0

    class Batch(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for image in batches((2, 3, 12, 12), 30):
            alive += 1
            most = max(most, alive)
            yield image.view(Batch)

    collect_max(source, ("r1",), stream())
    assert most <= 3


def test_bad_calibration_data_is_named(source: Path, tmp_path: Path) -> None:
    image = next(batches((1, 3, 12, 12), 1))
    with pytest.raises(DataError, match="no calibration images"):
        collect_max(source, ("r1",), [])
    with pytest.raises(DataError, match="NaN"):
        collect_max(source, ("r1",), [image * np.nan])
    with pytest.raises(ModelError, match="no tensor 'r9'"):
        collect_max(source, ("r9",), [image])
    with pytest.raises(ModelError, match=r"\[2, 7\]"):
        collect_max(source, ("r1",), [np.zeros((2, 7), np.float32)])
    broken = network()
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), np.inf, np.float32), "w1"))
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match="'c1' is not finite"):
        collect_max(tmp_path / "broken.onnx", ("c1",), [image])


def test_quantized_network_is_valid_close_to_float_and_placed_for_few_conversions(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    inserted = quantize_file(source, target, batches((4, 3, 12, 12), 8))
    # image, r1 (conv2, residual), cat, c3 (pool), f, m: one pair each, whoever reads them; r1 and cat share a scale.
    assert (inserted.pairs, inserted.layers, inserted.groups, inserted.left_float) == (6, 6, 1, ())
    assert set(inserted.amax) == {"image", "r1", "cat", "c3", "f", "m"} and inserted.amax["r1"] == inserted.amax["cat"]
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") == 6
    assert worst_sqnr_db(source, target, list(batches((4, 3, 12, 12), 4))) >= SQNR_FLOOR_DB
    # Nothing but the input is converted.
    assert predict(qdq.load(target), "explicit").signals.conversions == 1


def test_weights_are_int8_per_output_channel(source: Path) -> None:
    model = qdq.load(source)
    insert(model, dict.fromkeys(activations(model), 1.0))
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in network().graph.initializer}
    axes = {"conv1": 0, "conv2": 0, "conv3": 0, "matmul": 1, "gemm_transposed": 0, "gemm": 1}
    weights = dict(zip(axes, ("w1", "w2", "w3", "wm", "wg", "wh"), strict=True))
    found = {node.name: producer(node.inputs[1]) for node in model.graph if node.name in axes}
    assert set(found) == set(axes)
    for name, dequantize in found.items():
        values, scales = (stored(dequantize.inputs[index]) for index in (0, 1))
        assert dequantize.attributes["axis"].as_int() == axes[name]
        assert values.dtype == np.int8 and np.abs(values.astype(int)).max() == 127
        shape = [1] * values.ndim
        shape[axes[name]] = -1
        assert scales.size == values.shape[axes[name]] and (scales > 0).all()
        error = np.abs(values * scales.reshape(shape) - floats[weights[name]])
        assert (error <= scales.reshape(shape) / 2 + 1e-7).all()
    assert not any(name in model.graph.initializers for name in weights.values())


def test_scale_is_amax_over_127_and_zero_ranges_stay_float(source: Path) -> None:
    model = qdq.load(source)
    amax = {"image": 1.0, "r1": 2.54, "cat": 3.0, "f": 0.0, "m": 1.0}
    inserted = insert(model, amax)
    assert inserted.pairs == 4 and inserted.layers == 5
    assert len(inserted.left_float) == 1 and "'f' is all zero" in inserted.left_float[0]
    quantizers = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    scales = {reading.name(node.inputs[0]): stored(node.inputs[1]) for node in quantizers}
    assert scales.keys() == {"image", "r1", "cat", "m"}
    assert scales["image"].dtype == np.float32 and float(scales["image"]) == np.float32(1 / 127)
    # One group, the widest of its ranges.
    assert float(scales["r1"]) == float(scales["cat"]) == np.float32(3 / 127)


def test_residual_goes_to_the_side_without_a_convolution_of_its_own(source: Path) -> None:
    model = qdq.load(source)
    insert(model, dict.fromkeys(activations(model), 1.0))
    [add] = [node for node in model.graph if node.op_type == "Add"]
    assert [producer(value).op_type for value in add.inputs] == ["Conv", "DequantizeLinear"]
    [conv] = [node for node in model.graph if node.name == "conv2"]
    assert conv.inputs[0] is add.inputs[1]


def test_excluded_nodes_keep_float_weights(source: Path) -> None:
    model = qdq.load(source)
    insert(model, dict.fromkeys(activations(model), 1.0), exclude=["gemm*", "conv1"])
    kept = {node.name for node in model.graph if len(node.inputs) > 1 and present(node.inputs[1]).is_initializer()}
    assert kept & {"conv1", "conv2", "conv3", "matmul", "gemm", "gemm_transposed"} == {
        "conv1",
        "gemm",
        "gemm_transposed",
    }
    by_tensor = qdq.load(source)
    left = insert(by_tensor, dict.fromkeys(activations(by_tensor), 1.0), exclude=["y?"]).left_float
    assert left == ("Gemm y1: excluded by 'y?'", "Gemm y2: excluded by 'y?'")
    with pytest.raises(ConfigError, match=r"'conf1' matches no node of the network; did you mean 'conv1'\?"):
        insert(qdq.load(source), {}, exclude=["conf1"])


def test_an_excluded_sum_reads_float_whatever_the_rules_want(source: Path) -> None:
    model = qdq.load(source)
    insert(model, dict.fromkeys(activations(model, ["add"]), 1.0), exclude=["add"])
    [add] = [node for node in model.graph if node.op_type == "Add"]
    assert [producer(value).op_type for value in add.inputs] == ["Conv", "Relu"]
    assert {finding.code for finding in rules.lint(model)} == {"TQ201"}


def test_float_weights_keep_their_numbers_for_tensorrt_8(source: Path, tmp_path: Path) -> None:
    images = list(batches((4, 3, 12, 12), 2))
    for form in ("int8", "float"):
        quantize_file(source, tmp_path / f"{form}-weights.onnx", images, weights=form)
    model = qdq.load(tmp_path / "float-weights.onnx")
    quantized = {reading.name(node.inputs[0]) for node in model.graph if node.op_type == "QuantizeLinear"}
    assert quantized >= {"w1", "w2", "w3", "wm", "wg", "wh"}
    sessions = [backends.runner("ort").load(tmp_path / f"{form}-weights.onnx") for form in ("int8", "float")]
    one, other = (session.run({"image": images[0]}) for session in sessions)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    onnx.save(network(opset=18), tmp_path / "new.onnx")
    with pytest.raises(ConfigError, match="reads opset 17 at most, and the network has 18"):
        quantize_file(tmp_path / "new.onnx", tmp_path / "no.onnx", images, weights="float")


def test_the_input_is_never_written_over(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="is the input itself"):
        quantize_file(source, source.parent / "." / source.name, batches((1, 3, 12, 12), 1))
    with pytest.raises(ConfigError, match=r"calibrator 'man'.*did you mean 'max'"):
        quantize_file(
            source,
            source.with_name("no.onnx"),
            batches((1, 3, 12, 12), 1),
            calibrator="man",  # type: ignore[arg-type]  # no such calibrator, on purpose
        )
    assert source.read_bytes() == before and not source.with_name("no.onnx").exists()


def test_an_unfolded_export_with_identity_and_constant_nodes_is_cleaned_first(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    random = np.random.default_rng(3)
    for name, values in {
        "gamma": random.uniform(0.5, 2, 8),
        "beta": random.normal(size=8),
        "zero": np.zeros(8),
    }.items():
        constant = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values.astype(np.float32)))
        model.graph.node.insert(0, constant)
    model.graph.node.insert(3, helper.make_node("Identity", ["gamma"], ["variance"]))
    (relu,) = [node for node in model.graph.node if node.name == "relu1"]
    place = list(model.graph.node).index(relu)
    inputs = ["c1", "gamma", "beta", "zero", "variance"]
    model.graph.node.insert(place, helper.make_node("BatchNormalization", inputs, ["n1"], name="norm"))
    relu.input[0] = "n1"
    onnx.save(model, tmp_path / "unfolded.onnx")
    quantize_file(tmp_path / "unfolded.onnx", tmp_path / "int8.onnx", batches((4, 3, 12, 12), 4))
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert not kinds & {"BatchNormalization", "Identity", "Constant"}
    images = list(batches((4, 3, 12, 12), 2))
    assert worst_sqnr_db(tmp_path / "unfolded.onnx", tmp_path / "int8.onnx", images) >= SQNR_FLOOR_DB
    assert_nothing_to_mend(tmp_path / "int8.onnx")


def test_external_weights_end_in_the_file_and_stay_as_they_were(source: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    onnx.save(onnx.load(source), tmp_path / "in" / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    before = (tmp_path / "in" / "w").read_bytes()
    images = list(batches((2, 3, 12, 12), 2))
    quantize_file(tmp_path / "in" / "m.onnx", tmp_path / "external.onnx", images)
    quantize_file(source, tmp_path / "inline.onnx", images)
    assert (tmp_path / "external.onnx").read_bytes() == (tmp_path / "inline.onnx").read_bytes()
    assert (tmp_path / "in" / "w").read_bytes() == before and not (tmp_path / "w").exists()


def test_a_range_that_cuts_away_nearly_all_is_noted_with_a_better_one(source: Path, tmp_path: Path) -> None:
    images = [next(batches((4, 3, 12, 12), 1))]
    images[0][:, :, :2] = 60  # a few values far out hold nearly all of the power
    cut = quantize_file(source, tmp_path / "cut.onnx", images, calibrator="percentile", percentile=50.0)
    (note,) = [line for line in cut.notes if line.startswith("tensor 'image'")]
    assert re.search(r"percentile takes the range 0\.\d+, which leaves 0\.\d dB of it; mse would take [56]\d", note)
    assert quantize_file(source, tmp_path / "fine.onnx", images, calibrator="mse").notes == ()
    assert quantize_file(source, tmp_path / "max.onnx", images, calibrator="max").notes == ()


def test_a_group_takes_its_range_from_all_its_values_together(source: Path, tmp_path: Path) -> None:
    images = list(batches((4, 3, 12, 12), 4))
    inserted = quantize_file(source, tmp_path / "int8.onnx", images, calibrator="percentile", percentile=90.0)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in ("r1", "cat", "c3")}
    for values in observe(qdq.load(source), tuple(seen), images):
        for name, value in values.items():
            seen[name].append(np.abs(value).ravel())
    joined = np.concatenate(seen["r1"] + seen["cat"])
    assert inserted.amax["r1"] == inserted.amax["cat"] == pytest.approx(np.percentile(joined, 90), rel=2e-3)
    assert inserted.amax["c3"] == pytest.approx(np.percentile(np.concatenate(seen["c3"]), 90), rel=2e-3)
    assert inserted.amax["r1"] != pytest.approx(np.percentile(np.concatenate(seen["r1"]), 90), rel=2e-3)


def test_a_dead_weight_stays_float_and_is_said(tmp_path: Path) -> None:
    onnx.save(network(dead=True), tmp_path / "dead.onnx")
    inserted = quantize_file(tmp_path / "dead.onnx", tmp_path / "int8.onnx", batches((2, 3, 12, 12), 2))
    assert any(line.startswith("Conv c1") and "weight is all zero" in line for line in inserted.left_float)
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"), full_check=True)


def test_networks_that_cannot_be_quantized_are_refused(source: Path, tmp_path: Path) -> None:
    model = qdq.load(source)
    with pytest.raises(ModelError, match="'image' has no range"):
        insert(model, {})
    with pytest.raises(ModelError, match="range nan"):
        insert(model, dict.fromkeys(activations(model), float("nan")))
    insert(model, dict.fromkeys(activations(model), 1.0))
    with pytest.raises(ModelError, match="already"):
        activations(model)
    with pytest.raises(ModelError, match="opset 11"):
        activations(ir.from_proto(network(opset=11)))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared ONNX files are not here")
@pytest.mark.parametrize("calibrator", ["max", "percentile", "mse", "entropy"])
def test_a_real_export_keeps_its_accuracy(tmp_path: Path, calibrator: Calibrator) -> None:
    target = tmp_path / "int8.onnx"
    inserted = quantize_file(SHARED, target, batches((1, 3, 64, 64), 16), calibrator=calibrator)
    assert inserted.left_float == ()
    onnx.checker.check_model(onnx.load(target), full_check=True)
    assert worst_sqnr_db(SHARED, target, list(batches((1, 3, 64, 64), 8))) >= SQNR_FLOOR_DB
    assert_nothing_to_mend(target)
