"""Calibrate: run images through the network once and give every activation quantizer its range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trtq.config import QuantSpec
from trtq.data import Dataset, batches
from trtq.errors import DataError, ModelError
from trtq.ptq import calibrators
from trtq.quant.insert import Quantized

Progress = Callable[[int, int], None]


def calibrate(
    quantized: Quantized, dataset: Dataset, spec: QuantSpec, *, batch: int, progress: Progress | None = None
) -> None:
    """Set `_amax` of every activation quantizer from `dataset`, in place; memory is one batch and the histograms.

    Tied quantizers are one object, so their histogram is the union over their tensors. A quantizer whose tensor is
    always zero, and so has no range, is switched off and noted. Raises `DataError` for an empty data set.
    """
    if not len(dataset):
        raise DataError("the calibration set is empty; give at least one image")
    quantizers: list[Any] = list(dict.fromkeys(quantized.quantizers.values()))
    with _collecting(quantizers), torch.no_grad():
        for done, (images, _) in enumerate(batches(dataset, batch), start=1):
            quantized.module(torch.from_numpy(images))
            if progress is not None:
                progress(min(done * batch, len(dataset)), len(dataset))
    for quantizer in quantizers:
        _set_range(quantized, quantizer, spec)


def check_ranges(quantized: Quantized) -> None:
    """Raise `ModelError` unless every enabled quantizer has a range: without one it would quantize by each input."""
    for name, quantizer in quantized.quantizers.items():
        if not quantizer._disabled and not hasattr(quantizer, "_amax"):
            raise ModelError(f"{name}: has no calibrated range; run `trtq quantize` first")


@contextmanager
def _collecting(quantizers: Sequence[Any]) -> Iterator[None]:
    for quantizer in quantizers:
        quantizer._if_quant, quantizer._if_calib = False, True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer._if_quant, quantizer._if_calib = True, False


def switch_off(quantized: Quantized, names: Sequence[str]) -> None:
    """Leave the layers behind these quantizers float, input and weight; raises `KeyError` for an unknown name."""
    for name in names:
        quantized.quantizers[name].disable()
        owner: Any = quantized.module.get_submodule(name.rpartition(".")[0])
        if hasattr(owner, "_weight_quantizer"):
            owner._weight_quantizer.disable()


def _set_range(quantized: Quantized, quantizer: Any, spec: QuantSpec) -> None:
    amax = _amax(quantizer, spec)
    names = [name for name, one in quantized.quantizers.items() if one is quantizer]
    if not np.isfinite(amax):
        raise ModelError(
            f"{', '.join(names)}: calibration met NaN or infinite values; check the network and its images"
        )
    if amax > 0:
        quantizer.register_buffer("_amax", torch.tensor(amax, dtype=torch.float32))
    else:
        switch_off(quantized, names)
        quantized.notes += tuple(
            f"{name}: always zero on the calibration images; its layer stays float" for name in names
        )
    quantizer._calibrator.reset()


def _amax(quantizer: Any, spec: QuantSpec) -> float:
    calibrator = quantizer._calibrator
    if spec.calibrator == "max":
        amax = calibrator.compute_amax()
        return 0.0 if amax is None else float(amax)
    counts, edges = calibrator._calib_hist, calibrator._calib_bin_edges
    if counts is None or not float(edges[-1]) > 0:
        return 0.0
    return calibrators.amax_of(counts.numpy().astype(np.float64), edges.numpy().astype(np.float64), spec)
