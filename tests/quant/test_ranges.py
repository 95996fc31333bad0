"""Ranges equal pytorch-quantization's own, without CUDA and without its seconds a tensor."""

from unittest import mock

import numpy as np
import pytest
import torch
from pytorch_quantization.calib import histogram
from pytorch_quantization.calib.histogram import HistogramCalibrator

from trtq.config import QuantSpec
from trtq.errors import DataError
from trtq.quant import ranges


@pytest.fixture(scope="module", params=[0, 1], ids=["half-normal", "heavy-tailed"])
def calibrator(request: pytest.FixtureRequest) -> HistogramCalibrator:
    rng = np.random.default_rng(request.param)
    values = rng.standard_normal(40_000) if request.param == 0 else rng.standard_t(3, 40_000)
    collected = HistogramCalibrator(8, None, False, num_bins=400)
    for part in np.split(values.astype(np.float32), 4):
        collected.collect(torch.from_numpy(part))
    return collected


def own(calibrator: HistogramCalibrator, spec: QuantSpec) -> float:
    counts, edges = calibrator._calib_hist.numpy(), calibrator._calib_bin_edges.numpy()
    return ranges.amax_of(counts.astype(np.float64), edges.astype(np.float64), spec)


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.99, 100.0])
def test_percentile_is_the_library_s(calibrator: HistogramCalibrator, percentile: float) -> None:
    expected = float(calibrator.compute_amax("percentile", percentile=percentile))
    assert own(calibrator, QuantSpec("percentile", percentile)) == pytest.approx(expected, rel=1e-6)


def test_entropy_is_the_library_s(calibrator: HistogramCalibrator) -> None:
    assert own(calibrator, QuantSpec("entropy")) == pytest.approx(float(calibrator.compute_amax("entropy")), rel=1e-6)


def test_mse_is_the_library_s(calibrator: HistogramCalibrator) -> None:
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):  # the library insists on a GPU
        expected = float(
            histogram._compute_amax_mse(calibrator._calib_hist.numpy(), calibrator._calib_bin_edges.numpy(), 8, False)
        )
    assert own(calibrator, QuantSpec("mse")) == pytest.approx(expected, rel=1e-6)


def test_fewer_bins_than_levels_fall_back_to_the_whole_range() -> None:
    assert ranges.mse(np.ones(8), np.linspace(0, 2, 9), QuantSpec()) == 2.0


def test_an_empty_histogram_is_a_data_error() -> None:
    with pytest.raises(DataError, match="calibration saw no values"):
        ranges.amax_of(np.zeros(256), np.linspace(0, 1, 257), QuantSpec())
