"""Why a conversion is there, read off written-out graphs of a classic engine."""

from __future__ import annotations

import pytest

from trtq.compare import compare
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

MAP, POINT = (1, 64, 14, 14), (1, 64, 1, 1)


def tensor(name: str, dtype: DType, dims: tuple[int, ...] = MAP) -> Tensor:
    return Tensor(name, dims, dtype)


def layer(kind: str, name: str, inputs: list[Tensor], output: Tensor) -> Layer:
    return Layer(name, kind, tuple(inputs), (output,), (name,))


def conv(name: str, source: str, target: Tensor, *residual: Tensor) -> Layer:
    return layer("CaskConvolution", name, [tensor(source, "int8"), *residual], target)


def quantize(name: str, source: Tensor, target: str) -> Layer:
    return layer("Reformat QDQ", name, [source], tensor(target, "int8", source.dims))


def engine(*rows: Layer) -> LayerGraph:
    return LayerGraph("measured", "test", rows, signals(rows, "measured"))


FLOAT, INT8 = tensor("y", "float16"), tensor("q", "int8")
TAIL = conv("/tail/Conv", "q", tensor("o", "float16"))
WITHOUT = engine(conv("/a/Conv", "x", INT8), TAIL)


def conversion_of(*rows: Layer) -> tuple[str, str, str]:
    """Return the sentence, the rule and the remedy of the conversion that an engine has beside WITHOUT."""
    parts = [part for one in compare(engine(*rows), WITHOUT, "a", "b").differences for part in one.parts]
    (part,) = [part for part in parts if part.kind == "extra conversion"]
    return part.message, part.finding, part.remedy


def test_several_scales() -> None:
    rows = conv("/a/Conv", "x", FLOAT), quantize("/a/Q", FLOAT, "q"), quantize("/b/Q", FLOAT, "r"), TAIL
    message, finding, remedy = conversion_of(*rows)
    assert "converts y in 2 kernels of their own" in message
    assert message.endswith("because its readers quantize it with several scales")
    assert finding == "TQ103"
    assert remedy.startswith("trtq unify MODEL.onnx -o OUT.onnx")


def test_a_float_residual() -> None:
    stem = conv("/s/Conv", "w", tensor("x", "int8")), conv("/r/Conv", "w", tensor("residual", "float16"))
    join = conv("/a/Add", "x", FLOAT, tensor("residual", "float16"))
    message, finding, _ = conversion_of(*stem, join, quantize("/a/Q", FLOAT, "q"), TAIL)
    assert "/a/Add adds residual in float, so its result is float" in message
    assert finding == "TQ201"


def test_a_sum_of_its_own() -> None:
    left, right = tensor("l", "float16"), tensor("r", "float16")
    convs = conv("/l/Conv", "x", left), conv("/r/Conv", "x", right)
    add = layer("PointWiseV2", "/a/Add", [left, right], FLOAT)
    message, finding, _ = conversion_of(*convs, add, quantize("/a/Q", FLOAT, "q"), TAIL)
    assert message.endswith("because /a/Add adds in float")
    assert finding == "TQ201"


@pytest.mark.parametrize(
    ("dims", "words", "rule"), [(POINT, "averages in float", "TQ208"), ((1, 64, 7, 7), "pools in float", "TQ206")]
)
def test_a_float_pool(dims: tuple[int, ...], words: str, rule: str) -> None:
    pooled = tensor("p", "float16", dims)
    pool = layer("TiledPooling", "/pool/Pool", [FLOAT], pooled)
    message, finding, _ = conversion_of(conv("/a/Conv", "x", FLOAT), pool, quantize("/p/Q", pooled, "q"), TAIL)
    assert words in message
    assert finding == rule


def test_the_input_needs_no_remedy() -> None:
    entry = quantize("/i/Q", tensor("images", "float32"), "x")
    message, finding, remedy = conversion_of(entry, conv("/a/Conv", "x", INT8), TAIL)
    assert message.endswith("because the network's input is float")
    assert (finding, remedy) == ("", "none: an int8 engine converts what it is fed once")


def test_an_unknown_reason_points_to_the_linter() -> None:
    message, finding, remedy = conversion_of(conv("/a/Conv", "x", FLOAT), quantize("/a/Q", FLOAT, "q"), TAIL)
    assert "because" not in message
    assert (finding, remedy) == ("", "trtq lint MODEL.onnx (MODEL.onnx: the file of a)")
