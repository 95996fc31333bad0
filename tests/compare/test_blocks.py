"""Residual blocks from topology: on written-out graphs and on recorded engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtq import layers
from trtq.compare.blocks import blocks
from trtq.compare.sides import Side
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
needs_engines = pytest.mark.skipif(
    not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)
MAP, POINT = (1, 64, 14, 14), (1, 64, 1, 1)


def conv(target: str, *sources: str, dims: tuple[int, ...] = MAP, read: tuple[int, ...] = MAP) -> Layer:
    inputs = tuple(Tensor(name, read, "int8") for name in sources)
    return Layer(target, "CaskConvolution", inputs, (Tensor(target, dims, "int8"),))


def members(*rows: Layer) -> list[set[str]]:
    graph = LayerGraph("measured", "test", rows, signals(rows, "measured"))
    found: dict[int, set[str]] = {}
    for layer, block in zip(rows, blocks(Side(graph)), strict=True):
        if block is not None:
            found.setdefault(block, set()).add(layer.name)
    return list(found.values())


def test_a_chain_has_no_block() -> None:
    assert members(conv("a", "x"), conv("b", "a"), conv("c", "b")) == []


def test_blocks_in_a_row_are_two() -> None:
    rows = conv("s", "x"), conv("a", "s"), conv("b", "a", "s"), conv("c", "b"), conv("d", "c", "b"), conv("e", "d")
    assert members(*rows) == [{"a", "b"}, {"c", "d"}]


def test_a_projection_is_part_of_its_block_wherever_the_sum_is_fused() -> None:
    assert members(conv("s", "x"), conv("a", "s"), conv("b", "a"), conv("p", "s", "b")) == [{"a", "b", "p"}]
    assert members(conv("s", "x"), conv("a", "s"), conv("p", "s"), conv("b", "a", "p")) == [{"a", "b", "p"}]


def test_a_long_skip_over_other_blocks_is_no_block() -> None:
    """As in a U-Net: the outer sum would hold the inner block."""
    rows = conv("s", "x"), conv("a", "s"), conv("b", "a"), conv("c", "b", "a"), conv("d", "c", "s"), conv("e", "d")
    assert members(*rows) == [{"b", "c"}]


def test_a_gate_is_no_residual() -> None:
    """Squeeze-and-excitation scales the map by one number a channel; the residual around it is the block."""
    squeeze, gate = conv("g", "a", dims=POINT), conv("h", "g", dims=POINT, read=POINT)
    scale = Layer("m", "kgen", (Tensor("a", MAP, "int8"), Tensor("h", POINT, "int8")), (Tensor("m", MAP, "int8"),))
    assert members(conv("s", "x"), conv("a", "s"), squeeze, gate, scale, conv("b", "m")) == []
    rows = conv("s", "x"), conv("a", "s"), squeeze, gate, scale, conv("b", "m", "s"), conv("t", "b")
    assert members(*rows) == [{"a", "g", "h", "m", "b"}]


def test_a_concat_is_no_residual() -> None:
    """Branches write their slices of one tensor, which the next layer reads whole."""
    left, right = (conv(name, "s") for name in ("l", "r"))
    left, right = (Layer(one.name, one.kind, one.inputs, (Tensor("cat", MAP, "int8"),)) for one in (left, right))
    assert members(conv("s", "x"), left, right, conv("o", "cat", read=(1, 128, 14, 14))) == []


def convolutions(path: Path) -> list[int]:
    """Return how many convolutions each block of a recorded engine has; depthwise ones have a kind of their own."""
    side = Side(layers.read(path))
    found = [block for layer, block in zip(side.layers, blocks(side), strict=True) if "Conv" in layer.kind]
    return [found.count(block) for block in sorted({block for block in found if block is not None})]


@needs_engines
@pytest.mark.parametrize("mode", ["fp32", "fp16", "qat", "qat-residual", "qat-residual-qgap"])
def test_resnet18_has_eight_blocks_of_two_or_three_convolutions(mode: str) -> None:
    assert convolutions(ENGINES / "trt8-resnet18-a100" / f"{mode}.graph.json") == [2, 2, 3, 2, 3, 2, 3, 2]


@needs_engines
@pytest.mark.parametrize("mode", ["qat", "qat-residual"])
def test_mobilenet_v2_has_ten_blocks_of_three_convolutions(mode: str) -> None:
    assert convolutions(ENGINES / "trt8-mobilenetv2-titanrtx" / f"{mode}.graph.json") == [3] * 10
