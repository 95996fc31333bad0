from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from benchmarks import calibration_cache
from benchmarks.hostile_case import Case
from benchmarks.hostile_cases import CASES
from tests.conftest import check_trtq, present, run_trtq, sentences
from tests.ir_values import stored
from trtq import backends, ptq, qdq
from trtq.errors import ConfigError, ModelError, TrtqError
from trtq.ptq import CalibrationCache, cache_to_qdq, qdq_to_cache, write_cache
from trtq.ptq.qdq_to_cache import extract
from trtq.ptq.spread import spread
from trtq.qdq import reading

IMAGES = [np.random.default_rng(1).uniform(size=(1, 3, 64, 64)).astype(np.float32)]


def constant(value: ir.Value | None) -> np.ndarray:
    return present(reading.constant(value))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yolov5s") / "float.onnx"
    onnx.save(calibration_cache.network(), path)
    return path


@pytest.fixture(scope="module")
def cache(source: Path) -> CalibrationCache:
    """One scale for each tensor, those of a scale group alike: no tie changes any."""
    model = qdq.load(source)
    tensors = [value.name or "" for node in model.graph for value in node.outputs]
    random = np.random.default_rng(2)
    values = random.uniform(0.01, 0.1, len(tensors)).astype(np.float32)
    scales = dict(zip(tensors, map(float, values), strict=True))
    scales["images"] = float(np.float32(1 / 127))
    for group in ptq.scale_groups(model):
        scales.update(dict.fromkeys(group, scales[group[0]]))
    return CalibrationCache("8601", "EntropyCalibration2", scales)


def test_scales_reach_onnx_runtime_to_the_bit_and_come_back(
    source: Path, cache: CalibrationCache, tmp_path: Path
) -> None:
    target = tmp_path / "qdq.onnx"
    made = cache_to_qdq(source, cache, target)
    assert (made.tied, made.derived, made.left_float, made.audit.stale) == ((), (), (), ())
    assert made.layers == 60
    assert dict(made.scales) == {name: cache.scales[name] for name in made.scales}
    run = calibration_cache.run_scales(target, IMAGES)
    seen = {name: scale for name, scale in run.items() if scale is not None}
    assert set(run) == set(made.scales) and len(seen) > 0.9 * len(run)
    assert seen == {name: cache.scales[name] for name in seen}
    back = qdq_to_cache(target, tmp_path / "float.onnx", tmp_path / "back.cache", "8601")
    assert {name: back.cache.scales[name] for name in made.scales} == dict(made.scales)
    assert set(cache.scales) - set(back.cache.scales) == {f"/model.24/m.{index}/Conv_output_0" for index in range(3)}


def test_the_published_cache_fits_and_converts(source: Path, tmp_path: Path) -> None:
    if not calibration_cache.CACHE.is_file():
        pytest.skip("the published cache is not beside the checkout")
    held = ptq.read_cache(calibration_cache.CACHE)
    made = cache_to_qdq(source, held, tmp_path / "qdq.onnx")
    assert (len(made.audit.matching), made.audit.stale, made.audit.without_range) == (197, (), ())
    untied = {name: scale for name, scale in made.scales.items() if name not in made.tied}
    assert len(made.scales) - len(untied) == 4
    assert untied == {name: held.scales[name] for name in untied}
    back = qdq_to_cache(tmp_path / "qdq.onnx", tmp_path / "f.onnx", tmp_path / "b.cache", "8600").cache.scales
    assert set(back) == set(held.scales)


def test_the_float_network_that_comes_back_computes_with_the_int8_weights(
    source: Path, cache: CalibrationCache, tmp_path: Path
) -> None:
    cache_to_qdq(source, cache, tmp_path / "qdq.onnx")
    made = qdq_to_cache(tmp_path / "qdq.onnx", tmp_path / "float.onnx", tmp_path / "ptq.cache", "8601")
    onnx.checker.check_model(str(tmp_path / "float.onnx"), full_check=True)
    assert (made.weights, made.rescaled_weights, made.float_layers) == (60, (), ())
    before, after = (
        {name: stored(one) for name, one in qdq.load(path).graph.initializers.items()}
        for path in (source, tmp_path / "float.onnx")
    )
    convolutions = [node for node in qdq.load(source).graph if node.op_type == "Conv"]
    kernels = {reading.name(node.outputs[0]): reading.name(node.inputs[1]) for node in convolutions}
    for node in qdq.load(tmp_path / "float.onnx").graph:
        assert not reading.is_quantize(node) and not reading.is_dequantize(node)
        if node.op_type == "Conv":
            old, new = before[kernels[reading.name(node.outputs[0])]], after[reading.name(node.inputs[1])]
            step = np.abs(old).max(axis=(1, 2, 3), keepdims=True) / 127
            assert np.abs(old - new).max() > 0
            assert np.all(np.abs(old - new) <= step * 0.5001)
    session = backends.runner("ort").load(tmp_path / "float.onnx")
    assert all(np.isfinite(value).all() for value in session.run({"images": IMAGES[0]}).values())


def test_there_and_back_again_finds_the_same_integers(source: Path, cache: CalibrationCache, tmp_path: Path) -> None:
    first, again = tmp_path / "first.onnx", tmp_path / "again.onnx"
    made = cache_to_qdq(source, cache, first)
    back = qdq_to_cache(first, tmp_path / "float.onnx", tmp_path / "back.cache", "8601")
    assert cache_to_qdq(tmp_path / "float.onnx", back.cache, again).scales == made.scales
    before, after = (
        [
            node.inputs
            for node in qdq.load(path).graph
            if reading.is_dequantize(node) and not reading.is_activation(node)
        ]
        for path in (first, again)
    )
    assert len(before) == len(after) == 60
    for (codes, scales, _), (codes_again, scales_again, _) in zip(before, after, strict=True):
        assert np.array_equal(constant(codes), constant(codes_again))
        assert np.allclose(constant(scales), constant(scales_again), rtol=2e-7, atol=0)


def test_stale_keys_and_missing_ranges_are_listed_and_stay_float(
    source: Path, cache: CalibrationCache, tmp_path: Path
) -> None:
    scales = dict(cache.scales)
    scales["/model.3/act/Mul_output_1"] = scales.pop("/model.3/act/Mul_output_0")
    scales["(Unnamed Layer* 3) [Shuffle]_output"] = 1.0
    scales["images"] = 0.0
    made = cache_to_qdq(source, CalibrationCache("8601", "EntropyCalibration2", scales), tmp_path / "qdq.onnx")
    assert made.audit.stale == (("/model.3/act/Mul_output_1", "/model.3/act/Mul_output_0"),)
    assert made.audit.unnamed == ("(Unnamed Layer* 3) [Shuffle]_output",)
    assert made.audit.without_range == ("/model.3/act/Mul_output_0",)
    assert made.audit.zero == ("images",)
    assert not {"/model.3/act/Mul_output_0", "images"} & set(made.scales)
    assert made.layers == 57  # model.0, and both of model.4 that read model.3
    zero = [line for line in made.left_float if "all zero" in line]
    missing = [line for line in made.left_float if "has no range" in line]
    assert (len(zero), len(missing), len(made.left_float)) == (1, 2, 3)
    back = qdq_to_cache(tmp_path / "qdq.onnx", tmp_path / "f.onnx", tmp_path / "b.cache", "8601", tmp_path / "p.txt")
    floats = {"/model.0/conv/Conv", "/model.4/cv1/conv/Conv", "/model.4/cv2/conv/Conv"}
    assert set(back.float_layers) == floats
    assert set((tmp_path / "p.txt").read_text().strip().split(",")) == {f"{name}:fp16" for name in floats}


def test_a_neighbour_s_range_is_taken_where_values_are_only_moved(
    source: Path, cache: CalibrationCache, tmp_path: Path
) -> None:
    scales = {name: scale for name, scale in cache.scales.items() if name != "/model.12/Concat_output_0"}
    made = cache_to_qdq(source, CalibrationCache("8601", "EntropyCalibration2", scales), tmp_path / "qdq.onnx")
    assert made.derived == ("/model.12/Concat_output_0",)
    assert made.scales[made.derived[0]] == cache.scales[made.derived[0]]


def test_another_network_s_cache_and_unusable_paths_are_refused(
    source: Path, cache: CalibrationCache, tmp_path: Path
) -> None:
    other = CalibrationCache("8601", "EntropyCalibration2", {"x": 1.0, "y": 2.0})
    with pytest.raises(ModelError, match="none of the cache's 2 tensors"):
        cache_to_qdq(source, other, tmp_path / "qdq.onnx")
    with pytest.raises(ConfigError, match="is the input itself"):
        cache_to_qdq(source, cache, source)
    with pytest.raises(ConfigError, match="exclude 'nothing'"):
        cache_to_qdq(source, cache, tmp_path / "qdq.onnx", ["nothing"])
    with pytest.raises(ModelError, match="is not a file"):
        cache_to_qdq(Path("/dev/zero"), cache, tmp_path / "qdq.onnx")
    with pytest.raises(ModelError, match="no QuantizeLinear"):
        qdq_to_cache(source, tmp_path / "f.onnx", tmp_path / "b.cache", "8601")
    with pytest.raises(ConfigError, match="files of their own"):
        qdq_to_cache(source, tmp_path / "b.cache", tmp_path / "b.cache", "8601")
    assert not list(tmp_path.iterdir())


TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,4] x) => (float[1,4] y)
<float scale = {0.5}, int8 zero = {0}, float[4,4] w, float[4] ws, int8[4] wz>
{
    q = QuantizeLinear (x, scale, zero)
    d = DequantizeLinear (q, scale, zero)
    wq = QuantizeLinear <axis = 1> (w, ws, wz)
    wd = DequantizeLinear <axis = 1> (wq, ws, wz)
    m = MatMul (d, wd)
    y = Relu (m)
}
"""


def small(text: str = TEXT, clip: float = 1.0, /, **arrays: np.ndarray) -> ir.Model:
    proto = parser.parse_model(text)
    weight = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    scales = (clip * np.abs(weight).max(axis=0) / 127).astype(np.float32)
    values = {"w": weight, "ws": scales, "wz": np.zeros(4, np.int8), **arrays}
    kept = [one for one in proto.graph.initializer if one.name not in values]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in values.items())])
    for one in list(proto.graph.input):
        if one.name in values:
            proto.graph.input.remove(one)
    return ir.from_proto(proto)


def test_float_weights_behind_q_come_back_as_their_codes_say_and_a_new_scale_is_told() -> None:
    model = small()
    made = extract(model, "8601")
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]
    weight = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    scales = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    assert np.array_equal(constant(model.graph[0].inputs[1]), np.rint(weight / scales) * scales)
    assert (dict(made.cache.scales), made.trained, made.rescaled_weights) == ({"x": 0.5}, 1, ())
    assert extract(small(TEXT, 0.9, w=np.abs(weight)), "8601").rescaled_weights == ()  # clipped at 127
    assert len(extract(small(TEXT, 0.9), "8601").rescaled_weights) == 1  # clipped at -128
    assert len(extract(small(TEXT, 1.5), "8601").rescaled_weights) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("int8 zero = {0}", "uint8 zero = {0}", "not symmetric int8"),
        ("int8 zero = {0}", "int8 zero = {3}", "not symmetric int8"),
        ("float scale = {0.5}", "float[4] scale = {0.5, 0.5, 0.5, 0.5}", "not symmetric int8 with one"),
        ("float scale = {0.5}", "float scale = {-0.5}", "its scale is -0.5"),
        ("d = DequantizeLinear (q,", "r = Flatten (q) d = DequantizeLinear (r,", "read by something else"),
        ("d = DequantizeLinear (q, scale", "d = DequantizeLinear (q, other", "has another scale"),
    ],
)
def test_quantizers_that_a_cache_cannot_say_are_refused(old: str, new: str, words: str) -> None:
    text = TEXT.replace(old, new).replace("<float", "<float other = {0.25}, float")
    with pytest.raises(ModelError, match=words):
        extract(small(text), "8601")


STORED = TEXT.replace("wq = QuantizeLinear <axis = 1> (w, ws, wz)", "").replace("(wq, ws", "(w, ws")


def test_stored_weights_come_back_as_codes_times_scales() -> None:
    model = small(STORED, w=np.full((4, 4), -127, np.int8), ws=np.array([1, 2, 3, 4], np.float32))
    assert extract(model, "8601").rescaled_weights == ()
    assert np.array_equal(constant(model.graph[0].inputs[1]), [np.array([-127, -254, -381, -508], np.float32)] * 4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"w": np.full((4, 4), 127, np.uint8), "wz": np.zeros(4, np.uint8)}, "symmetric int8"),
        ({"w": np.full((4, 4), 127, np.int8), "wz": np.ones(4, np.int8)}, "symmetric int8"),
        ({"w": np.full((4, 3), 127, np.int8)}, "fit no axis"),
        ({"w": np.full((4, 4), 127, np.int8), "ws": np.zeros(4, np.float32)}, "not a positive constant"),
        ({"w": np.full((4, 4), 127, np.int8), "ws": np.full(4, np.nan, np.float32)}, "not a positive constant"),
    ],
)
def test_weights_that_are_no_int8_weights_are_refused(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        extract(small(STORED, **arrays), "8601")


def test_of_two_scales_of_one_tensor_the_cache_has_the_larger() -> None:
    text = TEXT.replace("<float", "<float other = {0.75}, float").replace(
        "y = Relu (m)", "q2 = QuantizeLinear (x, other, zero) d2 = DequantizeLinear (q2, other, zero) y = Add (m, d2)"
    )
    made = extract(small(text), "8601")
    assert (made.cache.scales["x"], made.repeated) == (0.75, ("x",))


BROKEN = (
    "symlink-loop", "pipe", "endless-device", "no-nodes", "missing-initializer", "undefined-output",
    "node-without-output", "tensor-data-short", "tensor-of-exabytes", "overflowing-size", "no-utf8-in-a-name",
    "no-utf8-in-an-operator", "bit-flips-0", "bit-flips-23",
)  # fmt: skip


@pytest.mark.parametrize("case", [one for one in CASES if one.name in BROKEN], ids=lambda one: one.name)
def test_broken_files_are_refused_in_one_sentence(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = case.make(tmp_path / "in")
    cache = CalibrationCache("8601", "EntropyCalibration2", {"x": 1.0, "y": 0.5})
    output, table = tmp_path / "out" / "network.onnx", tmp_path / "out" / "ptq.cache"
    for convert in (lambda: qdq_to_cache(path, output, table, "8601"), lambda: cache_to_qdq(path, cache, output)):
        with pytest.raises(TrtqError) as caught:
            convert()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


SPREAD = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1,2,8,8] x) => (float[1,4,4,4] y)
<float[2,2,1,1] w>
{
    c = Conv (x, w)
    s = Sigmoid (c)
    a = Mul (c, s)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    r = Relu (p)
    y = Concat <axis = 1> (p, r)
}
"""


def test_ranges_spread_over_what_keeps_values_and_into_fused_activations() -> None:
    model = ir.from_proto(parser.parse_model(SPREAD))
    assert spread(model, {"a": 2.0}, through_fused=False) == {"a": 2.0, "p": 2.0, "r": 2.0, "y": 2.0}
    assert spread(model, {"y": 3.0}, through_fused=True) == dict.fromkeys("yrpasc", 3.0)
    assert spread(model, {"y": 3.0, "p": 1.0}, through_fused=True)["p"] == 1.0
    assert spread(model, {"x": 1.0}, through_fused=True) == {"x": 1.0}


def test_the_command_line(source: Path, cache: CalibrationCache, tmp_path: Path) -> None:
    text, target, back = tmp_path / "ptq.cache", tmp_path / "qdq.onnx", tmp_path / "back.cache"
    write_cache(text, cache)
    assert "200 keys match the network, 0 are stale" in check_trtq("cache", "show", text, source)
    assert "60 layers with int8 weights" in check_trtq("cache", "to-qdq", source, text, "-o", target)
    printed = check_trtq("cache", "from-qdq", target, "-o", back, "--tensorrt", "8.6.1")
    assert f"{tmp_path / 'back.float.onnx'}: float, 60 weights" in printed
    assert "8601" not in check_trtq("cache", "port", back, "-o", back, "--tensorrt", "10.3.0")
    assert back.read_text().startswith("TRT-100300-")
    done = run_trtq("cache", "show", source)
    assert done.returncode == 2 and len(sentences(done.stderr)) == 1 and "Traceback" not in done.stderr
