"""What two engines do differently: engines that TensorRT-RTX compiles here, and recorded ones."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.compare.branches_onnx import TENSOR_ELEMENTS, branches, plain, residual
from tests.conftest import present
from trtq import backends, files, layers
from trtq.backends import BuildSpec
from trtq.compare import compare, signal_table
from trtq.errors import ModelError
from trtq.layers import rtx
from trtq.layers.graph import DType, Layer, LayerGraph, Origin, Tensor
from trtq.layers.signals import signals

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
needs_engines = pytest.mark.skipif(
    not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)
GOLDEN = Path(__file__).parents[1] / "layers" / "branches.table.txt"


NETWORKS = {
    "naive": branches(unified=False),
    "unified": branches(unified=True),
    "naive-more": branches(unified=False, consumers=True),
    "unified-more": branches(unified=True, consumers=True),
    "residual-float": residual(quantized=False),
    "residual-int8": residual(quantized=True),
    "plain": plain(),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LayerGraph, Path]]:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")
    folder = tmp_path_factory.mktemp("engines")
    found = {}
    for name, model in NETWORKS.items():
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        graph = backends.builder("rtx").build(BuildSpec(path), folder / f"{name}.plan").layers
        assert graph is not None
        found[name] = (graph, path)
    return found


Built = dict[str, tuple[LayerGraph, Path]]


def test_the_recorded_table_is_what_the_builder_writes(built: Built) -> None:
    assert built["naive"][0].layers == rtx.read_table(GOLDEN.read_text(encoding="utf-8"), "golden")


def test_unified_scales_remove_the_double_write(built: Built) -> None:
    naive, unified = built["naive"][0].signals, built["unified"][0].signals
    assert (naive.double_writes, unified.double_writes) == (1, 0)
    assert (naive.layers, naive.int8_share) == (unified.layers, unified.int8_share)
    assert present(naive.float_writes) - (unified.float_writes or 0) == 1
    # One float copy (4 bytes) is not written any more, and int8 (1 byte) is read in its stead.
    assert (naive.traffic_bytes or 0) - (unified.traffic_bytes or 0) == 7 * TENSOR_ELEMENTS


def test_difference_names_the_tensor(built: Built) -> None:
    (naive, naive_onnx), (unified, unified_onnx) = built["naive"], built["unified"]
    comparison = compare(naive, unified, "naive", "unified", onnx_a=naive_onnx, onnx_b=unified_onnx)
    assert comparison.aligned_share == 1.0
    (difference,) = comparison.differences
    assert difference.kind == "double write"
    assert difference.cause == "/b2/act/Mul_output_0"
    command = f"trtq unify {naive_onnx} -o OUT.onnx"
    assert difference.remedy == f"{command}: one scale for /b2/act/Mul_output_0, /Concat_output_0"
    assert difference.finding == "TQ101"
    assert set(difference.group) == {"/b2/act/Mul_output_0", "/Concat_output_0"}
    assert difference.quantizers == ("b3.conv.input_quantizer", "after.conv.input_quantizer")
    assert difference.cost_bytes == -7 * TENSOR_ELEMENTS
    assert difference.cost_us is None
    assert "/b3/conv/input_quantizer/QuantizeLinear" in difference.onnx_nodes
    assert "naive writes /b2/act/Mul_output_0 twice (int8 and float32)" in difference.message


def test_without_the_onnx_files_nodes_are_named(built: Built) -> None:
    (difference,) = compare(built["unified"][0], built["naive"][0], "unified", "naive").differences
    assert difference.kind == "double write"
    assert difference.cost_bytes == 7 * TENSOR_ELEMENTS
    assert "/b2/act/Mul" in difference.cause
    assert "/b3/conv/input_quantizer/QuantizeLinear, /after/conv/input_quantizer/QuantizeLinear" in difference.remedy


def test_more_consumers(built: Built) -> None:
    (naive, naive_onnx), (unified, unified_onnx) = built["naive-more"], built["unified-more"]
    assert (naive.signals.double_writes, unified.signals.double_writes) == (2, 1)
    assert (naive.signals.requantizes, unified.signals.requantizes) == (1, 0)
    comparison = compare(naive, unified, "naive", "unified", onnx_a=naive_onnx, onnx_b=unified_onnx)
    assert {one.kind: one.cause for one in comparison.differences} == {
        "double write": "/b2/act/Mul_output_0",
        "requantize": "/b3/act/Mul_output_0, /b1/act/Mul_output_0",
    }
    total = (unified.signals.traffic_bytes or 0) - (naive.signals.traffic_bytes or 0)
    assert sum(one.cost_bytes or 0 for one in comparison.differences) == total == -7 * TENSOR_ELEMENTS
    costs = [abs(one.cost_bytes or 0) for one in comparison.differences]
    assert costs == sorted(costs, reverse=True)


def test_residual_identity(built: Built) -> None:
    (float_identity, onnx_a), (int8_identity, onnx_b) = built["residual-float"], built["residual-int8"]
    (difference,) = compare(float_identity, int8_identity, "a", "b", onnx_a=onnx_a, onnx_b=onnx_b).differences
    assert difference.kind == "double write"
    assert difference.cause == "/stem/act/Mul_output_0"
    sentence = "quantize the input of /add/Add in a with the scale of /stem/act/Mul_output_0"
    assert difference.remedy.startswith(f"{sentence}: trtq lint {onnx_a} --select TQ201 --fix")
    assert difference.cost_bytes == -7 * TENSOR_ELEMENTS
    (unread,) = compare(float_identity, int8_identity, "a", "b").differences
    assert unread.cause == "output of /stem/act/Sigmoid or /stem/act/Mul"
    assert unread.remedy.endswith("where a reader has no quantizer")


def test_float_network_against_int8(built: Built) -> None:
    (floats, onnx_a), (ints, onnx_b) = built["plain"], built["residual-int8"]
    comparison = compare(floats, ints, "floats", "ints", onnx_a=onnx_a, onnx_b=onnx_b)
    precision = [one for one in comparison.differences if one.kind == "int8 instead of float"]
    assert {one.cause for one in precision} == {"images", "/stem/act/Mul_output_0", "/add/Add_output_0"}
    assert all(one.cost_bytes is None for one in comparison.differences)
    alone = [name for one in comparison.differences if one.kind.startswith("only") for name in one.onnx_nodes]
    assert alone == ["/stem/conv/input_quantizer/QuantizeLinear"]
    back = compare(ints, floats, "ints", "floats", onnx_a=onnx_b, onnx_b=onnx_a)
    assert sum(one.kind == "float instead of int8" for one in back.differences) == len(precision)


def test_json_form(built: Built) -> None:
    (difference,) = compare(built["naive"][0], built["unified"][0], "a", "b").differences
    assert set(difference.to_json()) >= {"class", "onnx_nodes", "cost_us", "cost_bytes", "cause", "remedy"}


def test_signal_table(built: Built) -> None:
    rows = {name: (a, b) for name, a, b in signal_table(built["naive"][0], built["unified"][0])}
    assert rows["double_writes"] == (1, 0)
    assert rows["conversions"] == (None, None)
    assert next(iter(rows)) == "layers"


def test_onnx_file_that_cannot_be_read(built: Built, tmp_path: Path) -> None:
    files.write_text(tmp_path / "x.onnx", "hello")
    with pytest.raises(ModelError, match=r"x\.onnx"):
        compare(built["naive"][0], built["unified"][0], "a", "b", onnx_a=tmp_path / "x.onnx")


def conv(dtype_in: DType, dtype_out: DType) -> Layer:
    return Layer(
        "conv",
        "correlation",
        (Tensor("x", (1, 8), dtype_in),),
        (Tensor("__mye1", (1, 8), dtype_out),),
        ("/p/conv/Conv", "/p/conv/input_quantizer/QuantizeLinear"),
    )


def one_layer(layer: Layer, origin: Origin = "compiled") -> LayerGraph:
    return LayerGraph(origin, "test", (layer,), signals([layer], origin))


def test_precision_on_rtx_has_no_byte_cost() -> None:
    a, b = one_layer(conv("int8", "float32")), one_layer(conv("float16", "float16"))
    (difference,) = compare(a, b, "int8", "half").differences
    assert difference.kind == "float instead of int8"
    assert difference.message == "half runs /p/conv/Conv in float, int8 in int8"
    assert difference.cost_bytes is None
    assert difference.remedy.startswith("quantize x in half")
    (back,) = compare(b, a, "half", "int8").differences
    assert back.kind == "int8 instead of float"


def test_other_origins_are_named() -> None:
    a, b = one_layer(conv("int8", "int8"), "measured"), one_layer(conv("float32", "float32"), "predicted")
    (difference,) = compare(a, b, "A", "B").differences
    assert difference.message.endswith("(A is measured, B is predicted)")
    assert difference.cost_bytes == 2 * 8 * 3


@needs_engines
@pytest.mark.parametrize(
    ("folder", "a", "b", "places", "fewer"),
    [
        ("trt8-resnet18-a100", "qat-residual", "qat-residual-qgap", 2, 2),
        ("trt8-resnet18-a100", "qat", "qat-residual-qgap", 9, 9),
        ("trt8-mobilenetv2-titanrtx", "qat", "qat-residual", 15, 15),
    ],
)
def test_leftover_conversions_of_recorded_engines(folder: str, a: str, b: str, places: int, fewer: int) -> None:
    graph_a, graph_b = (
        layers.read(ENGINES / folder / f"{name}.graph.json", ENGINES / folder / f"{name}.profile.json")
        for name in (a, b)
    )
    comparison = compare(graph_a, graph_b, a, b)
    found = [part for one in comparison.differences for part in one.parts if part.kind == "extra conversion"]
    assert all(f"{a} converts" in part.message and part.cause and part.remedy for part in found)
    (role,) = [role for role in comparison.roles if role.role == "Q/DQ conversions"]
    assert (len(found), role.layers_a - role.layers_b) == (places, fewer)
    assert sum(part.cost_us or 0 for part in found) <= 0
    assert comparison.total_us == pytest.approx(
        (graph_b.signals.time_us or 0) - (graph_a.signals.time_us or 0), abs=1e-3
    )
    costs = [abs(one.cost_us or 0) for one in comparison.differences]
    assert costs == sorted(costs, reverse=True)
