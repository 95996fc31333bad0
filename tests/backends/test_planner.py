"""The version planner against its golden file, its refusals, and the real builder that makes its calls here."""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.backends import planner_cases
from trtq.backends import BuildOptions, BuildSpec, ShapeRange, building, calls, dialects, planner, rtx, shapes
from trtq.backends.calls import Argument, Bits, Call, Held, Named
from trtq.backends.dialects import DIALECTS
from trtq.backends.form import OnnxForm, form_of, misfit
from trtq.config import Mode
from trtq.errors import ConfigError, DataError, ModelError

GOLDEN = Path(__file__).with_name("planner.golden.txt")
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
NOTHING = BuildOptions()
FLOAT, QUANTIZED = OnnxForm(17, False, "float", "float32"), OnnxForm(17, True, "int8", "float32")


class File(TypedDict, total=False):
    opset: int
    quantized: str
    half: bool


def network(path: Path, *, opset: int = 17, quantized: str = "", half: bool = False, dynamic: bool = False) -> Path:
    """Write one convolution; quantized: how its weights are stored, "" for none."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = np.random.default_rng(0).integers(-9, 9, (8, 3, 3, 3))
    constants = {"w": weights.astype(np.float16 if half else np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4)]
    if quantized:
        constants |= {"s": np.array(0.05, np.float32), "z": np.array(0, np.int8)}
        stored = ["q_w", "s", "z"] if quantized == "float" else ["w", "s", "z"]
        constants["w"] = weights.astype(np.int8 if quantized == "int8" else np.float32)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
            *([helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q_w"])] if quantized == "float" else []),
            helper.make_node("DequantizeLinear", stored, ["d_w"], name="weight"),
            helper.make_node("Conv", ["d", "d_w"], ["y"], name="conv", pads=[1] * 4),
        ]
    batch = "n" if dynamic else 1
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("y", kind, [batch, 8, 16, 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def test_every_dialect_and_mode_as_recorded() -> None:
    expected, found = GOLDEN.read_text(encoding="utf-8").splitlines(), list(planner_cases.lines())
    assert found == expected, "\n".join(difflib.unified_diff(expected, found, "recorded", "planned", lineterm=""))


def test_golden_file_says_what_the_versions_differ_in() -> None:
    blocks = dict(
        block.split("\n", 1) for block in GOLDEN.read_text(encoding="utf-8").removesuffix("\n").split("---- ")[1:]
    )
    assert "Q/DQ with float weights" in blocks["trt8.5, qat"]
    assert "opset <= 17" in blocks["trt8.6, qat"]
    assert "Q/DQ with int8 weights" in blocks["trt10.3, qat"]
    assert "int8_calibrator = calibrator" in blocks["trt10.16, ptq, implicit"]
    for version in ("trt11.4", "rtx"):
        assert "refused" in blocks[f"{version}, ptq, implicit"] and "trtq ptq" in blocks[f"{version}, ptq, implicit"]
        assert "BuilderFlag" not in blocks[f"{version}, qat"]
        assert "floats in float16" in blocks[f"{version}, fp16"]
    assert "progress_monitor" not in blocks["trt8.6, fp32"] and "progress_monitor" in blocks["trt10.3, fp32"]


def test_no_enum_integer_is_in_a_plan() -> None:
    for dialect in DIALECTS.values():
        for call in planner.plan(BuildSpec(Path("x.onnx"), ("sm86",), "fp32"), dialect, quantized=False).calls:
            if call.attribute in ("create_network", "set_flag"):
                assert not any(isinstance(one, int) for one in call.arguments)


def test_no_engine_is_refittable() -> None:
    assert "REFIT" not in GOLDEN.read_text(encoding="utf-8")


def spec(mode: Mode, options: BuildOptions = NOTHING) -> BuildSpec:
    return BuildSpec(Path("n.onnx"), ("sm86",), mode, options)


RANGE = ShapeRange("x", (1, 3), (2, 3), (4, 3))


@pytest.mark.parametrize(
    ("asked", "version", "quantized", "message"),
    [
        (spec("fp32"), "trt8.6", True, "no fp32 network; build it with --mode ptq or qat"),
        (spec("qat"), "trt10.3", False, "holds no Q/DQ nodes"),
        (spec("ptq"), "trt10.3", False, "needs a calibration cache or batches"),
        (dataclasses.replace(spec("qat"), calibration_cache=Path("c")), "trt10.3", True, "ignores a calibration"),
        (spec("fp32", BuildOptions(level=2)), "trt8.5", False, "no builder optimization level; leave level out"),
        (spec("fp32", BuildOptions(level=6)), "trt8.6", False, "must be 0 to 5"),
        (spec("fp32", BuildOptions(workspace_mib=0)), "trt8.6", False, "greater than 0"),
        (spec("fp32", BuildOptions(dla_core=0)), "trt8.6", False, "DLA computes in FP16 and INT8"),
        (spec("fp16", BuildOptions(dla_core=-1)), "trt8.6", False, "count from 0"),
        (spec("fp16", BuildOptions(dla_core=0, profiles=((RANGE,),))), "trt8.6", False, "DLA takes fixed shapes"),
        (
            spec("fp32", BuildOptions(profiles=((RANGE,), ()))),
            "trt8.6",
            False,
            "every profile names each dynamic input",
        ),
        (
            spec("fp32", BuildOptions(profiles=((RANGE, RANGE),))),
            "trt8.6",
            False,
            "every profile names each dynamic input",
        ),
        (
            spec("fp32", BuildOptions(profiles=((ShapeRange("x", (2, 3), (1, 3), (4, 3)),),))),
            "trt8.6",
            False,
            "the smallest, the usual and the largest",
        ),
        (
            spec("fp32", BuildOptions(profiles=((ShapeRange("x", (1,), (1, 3), (4, 3)),),))),
            "trt8.6",
            False,
            "of one rank",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(asked: BuildSpec, version: str, quantized: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planner.plan(asked, DIALECTS[version], quantized=quantized)


def test_implicit_ptq_is_not_strongly_typed() -> None:
    asked = dataclasses.replace(spec("ptq", BuildOptions(strongly_typed=True)), calibration_cache=Path("c"))
    with pytest.raises(ConfigError, match="leave strongly_typed out"):
        planner.plan(asked, DIALECTS["trt10.3"], quantized=False)


def test_form_of_files(tmp_path: Path) -> None:
    read = {name: form_of(onnx.load(network(tmp_path / "n.onnx", quantized=name))) for name in ("", "float", "int8")}
    assert read[""] == FLOAT
    assert read["float"] == OnnxForm(17, True, "float", "float32")
    assert read["int8"] == QUANTIZED
    assert form_of(onnx.load(network(tmp_path / "h.onnx", half=True, opset=19))) == OnnxForm(
        19, False, "float", "float16"
    )


@pytest.mark.parametrize(
    ("version", "mode", "file", "message"),
    [
        ("trt8.6", "qat", {"quantized": "int8"}, r'weights are stored as int8.* engine\.weights = "float"'),
        ("trt8.6", "qat", {"quantized": "float", "opset": 19}, "it is opset 19.* 17 or lower"),
        ("trt8.5", "fp32", {"opset": 20}, "opset 20"),
        ("trt11.4", "fp16", {}, "takes FP16 from the file alone"),
        ("trt10.3", "fp32", {"half": True}, "build it with --mode fp16"),
        ("trt8.6", "qat", {"quantized": "float"}, None),
        ("trt10.3", "qat", {"quantized": "int8"}, None),
        ("trt10.3", "qat", {"quantized": "float", "opset": 20}, None),
        ("trt8.6", "fp16", {"half": True}, None),
        ("trt11.4", "fp16", {"half": True}, None),
    ],
)
def test_file_of_another_form(tmp_path: Path, version: str, mode: Mode, file: File, message: str | None) -> None:
    path = network(tmp_path / "n.onnx", **file)
    asked = BuildSpec(path, (), mode)
    if message is None:
        assert building.plan_for(asked, DIALECTS[version]).mode == mode
        return
    with pytest.raises(ModelError, match=message) as refused:
        building.plan_for(asked, DIALECTS[version])
    assert isinstance(refused.value, building.FormError)


def test_mode_of_a_file_that_names_none(tmp_path: Path) -> None:
    files: tuple[File, ...] = ({"quantized": "int8"}, {"half": True}, {})
    modes = {
        building.plan_for(BuildSpec(network(tmp_path / "n.onnx", **file)), DIALECTS["trt10.3"]).mode for file in files
    }
    assert modes == {"qat", "fp16", "fp32"}


def test_a_want_is_met_by_itself() -> None:
    for dialect in DIALECTS.values():
        for mode in ("fp32", "fp16", "ptq", "qat"):
            wanted = planner.wanted_form(mode, dialect, quantization="explicit" if mode in ("ptq", "qat") else "none")
            assert misfit(wanted, wanted, "") is None


def test_calibration_batches_are_looked_at_before_the_build(tmp_path: Path) -> None:
    path, folder = network(tmp_path / "n.onnx"), tmp_path / "batches"
    folder.mkdir()
    asked = BuildSpec(path, (), "ptq", calibration_batches=folder)
    with pytest.raises(DataError, match=r"holds no \.npy files"):
        building.plan_for(asked, DIALECTS["trt8.6"])
    np.save(folder / "0.npy", np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"0\.npy: is float32 \[1, 3, 8, 8\]; .* float32 \[1, 3, 16, 16\]"):
        building.plan_for(asked, DIALECTS["trt8.6"])
    np.save(folder / "0.npy", np.zeros((1, 3, 16, 16), np.float32))
    planned = building.plan_for(asked, DIALECTS["trt8.6"])
    request = building.request(planned, tmp_path / "p", tmp_path, layers=True)
    assert request["calibration"]["batches"] == [str(folder / "0.npy")]


ARGUMENTS = st.one_of(
    st.text(max_size=5),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.text(max_size=5).map(Named),
    st.text(max_size=5).map(Held),
    st.lists(st.text(max_size=5), max_size=3).map(lambda paths: Bits(tuple(paths))),
)


@given(st.lists(ARGUMENTS, max_size=4).map(tuple), st.booleans(), st.none() | st.text(max_size=5))
def test_calls_survive_the_way_to_the_worker(arguments: tuple[Argument, ...], sets: bool, result: str | None) -> None:
    call = Call("config", "set_flag", arguments, sets, result)
    assert calls.from_json(json.loads(json.dumps(call.to_json()))) == call


def test_shapes_as_people_write_them() -> None:
    assert shapes.parse_profile("a:0=1x3,2x3,4x3;b=5") == (
        ShapeRange("a:0", (1, 3), (2, 3), (4, 3)),
        ShapeRange("b", (5,), (5,), (5,)),
    )
    for wrong in ("", "a", "a=1x3,2x3", "a=1xn", "=1x3"):
        with pytest.raises(ConfigError, match="SMALLEST,USUAL,LARGEST"):
            shapes.parse_profile(wrong)


def test_names_of_dialects() -> None:
    assert dialects.named("8.6") is DIALECTS["trt8.6"] and dialects.named("rtx") is DIALECTS["rtx"]
    with pytest.raises(ConfigError, match=r"TensorRT 'trt8\.7' is not known; did you mean 'trt8\.[56]'"):
        dialects.named("trt8.7")


def test_options_reach_the_real_builder(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")
    path = network(tmp_path / "n.onnx", dynamic=True)
    ranges = tuple(
        (ShapeRange("x", (low, 3, 16, 16), (high, 3, 16, 16), (high, 3, 16, 16)),) for low, high in ((1, 2), (4, 8))
    )
    options = BuildOptions(profiles=ranges, workspace_mib=512, level=1)
    engine = rtx.build(BuildSpec(path, mode="fp32", options=options), tmp_path / "n.plan")
    assert engine.layers is not None
    # One row for each profile: both were built.
    assert sum("conv" in layer.onnx_nodes for layer in engine.layers.layers) == 2
    with pytest.raises(ConfigError, match="leave the timing cache out"):
        rtx.build(BuildSpec(path, options=BuildOptions(timing_cache=tmp_path / "t")), tmp_path / "n.plan")
