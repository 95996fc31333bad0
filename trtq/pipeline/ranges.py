"""Calibrated ranges of a recipe's modes, read from the scales in their Q/DQ files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trtq import qdq
from trtq.qdq import reading
from trtq.report.data import RangeRow
from trtq.report.ranges import INT8_LEVELS

# Naive has ptq's ranges, before they were made to agree; modes without Q/DQ have none.
SHOWN = (("ptq", "qat"), ("naive",))


def calibrated_ranges(models: Mapping[str, Path]) -> tuple[RangeRow, ...]:
    """Return the range of each activation that ptq and qat quantize, else naive; tensors in the network's order.

    models: mode -> its ONNX file. A tensor that several quantizers read with different scales has the largest of
    their ranges. Raises `ModelError` for a file that cannot be read.
    """
    for modes in SHOWN:
        found = {mode: _amax(models[mode]) for mode in modes if mode in models and models[mode].is_file()}
        tensors = dict.fromkeys(tensor for one in found.values() for tensor in one)
        if tensors:
            return tuple(
                RangeRow(tensor, {mode: one[tensor] for mode, one in found.items() if tensor in one})
                for tensor in tensors
            )
    return ()


def _amax(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in reading.nodes(qdq.load(path)):
        if not reading.is_quantize(node) or not reading.is_activation(node):
            continue
        scale, tensor = reading.scalar_scale(node), reading.quantized_tensor(node)
        if scale is not None and tensor is not None:
            name = reading.name(tensor)
            found[name] = max(found.get(name, 0.0), scale * INT8_LEVELS)
    return found
