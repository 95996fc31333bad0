"""Histograms streamed through ONNX Runtime: whole or in parts, whatever the batch, of all of a group's tensors."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from trtq.errors import DataError, ModelError
from trtq.ptq import Histogram, collect_histograms

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[N,2,16,16] x) => (float[N,2,8,8] y)
{
    doubled = Add (x, x)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (doubled)
    y = Sigmoid (pooled)
}
"""
GROUPS = (("x",), ("doubled", "pooled"), ("y", "doubled"))


def network(batch: str = "N") -> ir.Model:
    return ir.from_proto(parser.parse_model(TEXT.replace("N,", f"{batch},")))


def images(count: int, batch: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(batch, 2, 16, 16)).astype(np.float32) for _ in range(count)]


def counts(histograms: tuple[Histogram, ...]) -> list[list[int]]:
    return [one.counts.tolist() for one in histograms]


def expected(batches: list[np.ndarray]) -> list[list[int]]:
    found = tuple(Histogram() for _ in GROUPS)
    for x in batches:
        doubled = x + x
        pooled = doubled.reshape(len(x), 2, 8, 2, 8, 2).max(axis=(3, 5))
        # A Sigmoid's last bit is ONNX Runtime's own, and no bin is that fine.
        y = (1 / (1 + np.exp(-pooled.astype(np.float64)))).astype(np.float32)
        for histogram, values in zip(found, ((x,), (doubled, pooled), (y, doubled)), strict=True):
            for one in values:
                histogram.add(one)
    return counts(found)


def test_a_group_is_the_union_of_its_tensors_over_all_images() -> None:
    batches = images(4)
    found, wanted = counts(collect_histograms(network(), GROUPS, batches)), expected(batches)
    assert found[:2] == wanted[:2]
    moved = np.abs(np.subtract(found[2], wanted[2])).sum()
    assert moved <= 4 and sum(found[2]) == sum(wanted[2])


def test_parts_batches_and_filling_change_nothing() -> None:
    batches = images(6)
    whole = counts(collect_histograms(network(), GROUPS, batches))
    assert counts(collect_histograms(network(), GROUPS, batches, memory_mib=0)) == whole
    assert counts(collect_histograms(network(), GROUPS, [np.concatenate(batches)])) == whole
    # A network of a fixed batch of 4 is filled up with repeated images, which must not count.
    assert counts(collect_histograms(network("4"), GROUPS, [np.concatenate(batches)])) == whole


def test_progress_is_told_where_images_have_a_length() -> None:
    told: list[tuple[int, int]] = []
    collect_histograms(network(), GROUPS, images(3), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    collect_histograms(network(), GROUPS, iter(images(3)), progress=lambda done, total: told.append((done, total)))
    assert len(told) == 3


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def stream(count: int) -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        return (random.normal(size=(16, 2, 16, 16)).astype(np.float32) for _ in range(count))

    peaks = []
    for count in (4, 40):
        tracemalloc.start()
        collect_histograms(network(), GROUPS, stream(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    batch_bytes = 16 * 2 * 16 * 16 * 4
    assert peaks[1] < peaks[0] + 4 * batch_bytes


def test_what_cannot_be_collected_is_said() -> None:
    with pytest.raises(DataError, match="no calibration images"):
        collect_histograms(network(), GROUPS, [])
    with pytest.raises(ModelError, match="no tensor 'z'"):
        collect_histograms(network(), [("z",)], images(1))
    with pytest.raises(DataError, match="NaN"):
        collect_histograms(network(), GROUPS, [images(1)[0] * np.nan])
    infinite = ir.from_proto(
        parser.parse_model(
            TEXT.replace("Add (x, x)", "Div (x, doubling)").replace(
                "{\n    doubled", "<float doubling = {0}>\n{\n    doubled"
            )
        )
    )
    with pytest.raises(ModelError, match="'doubled' is not finite"):
        collect_histograms(infinite, [("doubled",)], images(1))
