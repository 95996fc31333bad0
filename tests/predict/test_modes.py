"""Predictions without Q and DQ, what they are sure of, and the copies in front of a Concat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx_ir as ir
import pytest

from tests.predict.qdq_networks import Builder, mobilenet_v2, resnet18
from trtq.errors import ConfigError
from trtq.predict import Mode, predict, predict_types


@pytest.mark.parametrize("network", [resnet18, mobilenet_v2])
def test_implicit_ptq_converts_the_input_alone_wherever_the_files_pairs_stand(
    network: Callable[[], ir.Model],
) -> None:
    graph = predict(network(), "ptq")
    assert graph.signals.conversions == 1 and graph.signals.int8_share == 1
    first, last = graph.layers[0], graph.layers[-1]
    assert (first.kind, first.inputs[0].dtype, first.outputs[0].dtype) == ("quantize", "float", "int8")
    assert last.outputs[0].dtype == "float"
    assert "not validated: no reference engine" in " ".join(graph.notes)


def test_the_best_explicit_placement_writes_the_types_of_implicit_ptq() -> None:
    best = predict_types(resnet18(residual=True, pool=True))
    implicit = predict_types(resnet18(), "ptq")
    # Which of two convolutions takes the Add that joins them is free, so the other one's tensor has two names.
    assert Counter(best.tensors.values()) == Counter(implicit.tensors.values()) == {"int8": 22, "float": 1}
    # The stem does the max pool too, which one network's engines show.
    assert Counter(best.confidence.values()) == {"certain": 22, "likely": 1}
    assert set(implicit.confidence.values()) == {"likely"}


@pytest.mark.parametrize(("mode", "dtype"), [("fp32", "float32"), ("fp16", "float")])
def test_a_float_engine_has_no_int8_and_no_conversions(mode: Mode, dtype: str) -> None:
    graph = predict(resnet18(), mode)
    assert graph.signals.conversions == 0 and graph.signals.int8_share == 0
    assert {tensor.dtype for layer in graph.layers for tensor in (*layer.inputs, *layer.outputs)} == {dtype}


def test_implicit_ptq_dequantizes_once_for_all_readers_without_an_int8_kernel() -> None:
    b = Builder()
    x = b.quantized_conv(b.input(), "one", 4)
    b.same("Exp", x, "exp")
    b.same("Sin", x, "sin")
    graph = predict(b.model(b.quantized_conv(x, "two", 4)), "ptq")
    kinds = Counter(layer.kind for layer in graph.layers)
    assert kinds["quantize"] == 1 and kinds["dequantize"] == 1
    conversion = next(layer for layer in graph.layers if layer.kind == "dequantize")
    readers = [layer.kind for layer in graph.layers if conversion.outputs[0] in layer.inputs]
    assert sorted(readers) == ["Exp", "Sin"]


def test_a_concat_copies_what_its_producer_cannot_write_in_place() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1,2,4,4] x) => (float[1,6,4,4] y, float[1,4,4,4] z)
    <float[2,2,1,1] w = {1, 2, 3, 4}> {
        one = Conv (x, w)  two = Conv (x, w)
        y = Concat <axis = 1> (one, two, x)
        z = Concat <axis = 1> (one, two)
    }
    """
    copies = [layer.name for layer in predict(ir.from_onnx_text(text), "fp32").layers if layer.kind == "copy"]
    # The network's input has no kernel; the other two lie in the first Concat's buffer already.
    assert copies == ["x copy", "one copy", "two copy"]


def test_what_stands_beside_an_operator_of_another_compiler_is_unknown() -> None:
    b = Builder()
    x = b.quantized_conv(b.input(), "one", 4)
    model = b.model(b.same("Softmax", x, "softmax"))
    found = predict_types(model)
    assert found.tensors == {"one:0": "unknown", "softmax:0": "unknown"} == found.confidence


def test_a_later_tensorrt_makes_nothing_certain() -> None:
    for target, word in (("trt8.6", "certain"), ("trt10", "likely"), ("trt11", "likely")):
        assert set(predict_types(resnet18(), target=target).confidence.values()) == {word}


def test_a_target_without_implicit_ptq_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="trt11 has no implicit PTQ; put Q/DQ into the file"):
        predict_types(resnet18(), "ptq", target="trt11")
    with pytest.raises(ConfigError, match="mode 'fp8' is not known"):
        predict_types(resnet18(), "fp8")  # type: ignore[arg-type]  # no such mode, on purpose
