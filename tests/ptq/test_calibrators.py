"""Calibrators equal pytorch-quantization's own on the same histogram, without CUDA and without its seconds a tensor."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtq.config import QuantSpec
from trtq.errors import DataError
from trtq.ptq import Histogram, calibrators

torch = pytest.importorskip("torch", reason="torch is not installed")
histogram = pytest.importorskip("pytorch_quantization.calib.histogram", reason="pytorch-quantization is not installed")


@pytest.fixture(scope="module", params=[0, 1], ids=["half-normal", "heavy-tailed"])
def calibrator(request: pytest.FixtureRequest) -> Any:
    rng = np.random.default_rng(request.param)
    values = rng.standard_normal(40_000) if request.param == 0 else rng.standard_t(3, 40_000)
    collected = histogram.HistogramCalibrator(8, None, False, num_bins=400)
    for part in np.split(values.astype(np.float32), 4):
        collected.collect(torch.from_numpy(part))
    return collected


def own(calibrator: Any, spec: QuantSpec) -> float:
    counts, edges = calibrator._calib_hist.numpy(), calibrator._calib_bin_edges.numpy()
    return calibrators.amax_of(counts.astype(np.float64), edges.astype(np.float64), spec)


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.99, 100.0])
def test_percentile_is_the_library_s(calibrator: Any, percentile: float) -> None:
    expected = float(calibrator.compute_amax("percentile", percentile=percentile))
    assert own(calibrator, QuantSpec("percentile", percentile)) == pytest.approx(expected, rel=1e-6)


def test_entropy_is_the_library_s(calibrator: Any) -> None:
    assert own(calibrator, QuantSpec("entropy")) == pytest.approx(float(calibrator.compute_amax("entropy")), rel=1e-6)


def test_mse_is_the_library_s(calibrator: Any) -> None:
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):  # the library insists on a GPU
        expected = float(
            histogram._compute_amax_mse(calibrator._calib_hist.numpy(), calibrator._calib_bin_edges.numpy(), 8, False)
        )
    assert own(calibrator, QuantSpec("mse")) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["normal", "relu6", "sparse", "gaps"]),
    st.integers(129, 220),
)
def test_entropy_is_the_library_s_on_any_histogram(seed: int, shape: str, size: int) -> None:
    random = np.random.default_rng(seed)
    values = {
        "normal": np.abs(random.normal(size=20_000)),
        "relu6": np.clip(random.normal(2, 3, size=20_000), 0, 6),
        "sparse": np.abs(random.standard_t(2, size=300)),
        "gaps": random.choice(np.abs(random.normal(size=40)), size=5_000),
    }[shape]
    counts, edges = np.histogram(values, size, (0, values.max()))
    expected = histogram._compute_amax_entropy(counts.copy(), edges, 8, False, 1, calibrators.START_BIN)
    found = calibrators.entropy(counts.astype(np.float64), edges, QuantSpec("entropy"))
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_a_table_that_grew_by_doubling_gives_the_library_s_entropy_too() -> None:
    collected = Histogram()
    for scale in (0.1, 1, 5):
        collected.add(np.random.default_rng(0).normal(0, scale, 30_000).astype(np.float32))
    counts, edges = collected.table()
    counts, edges = counts[: counts.size // 8 * 8].reshape(-1, 8).sum(1), edges[::8][: counts.size // 8 + 1]
    expected = histogram._compute_amax_entropy(counts.astype(np.int64), edges, 8, False, 1, calibrators.START_BIN)
    assert calibrators.entropy(counts, edges, QuantSpec("entropy")) == pytest.approx(float(expected), rel=1e-6)


def test_nearly_all_zero_still_has_a_positive_percentile() -> None:
    counts = np.zeros(400)
    counts[0], counts[-1] = 10**6, 1
    assert calibrators.percentile(counts, np.linspace(0, 1, 401), QuantSpec("percentile", 99.0)) == 1 / 400


def test_max_is_the_end_of_the_last_bin_that_holds_a_value() -> None:
    assert calibrators.amax_of(np.array([3.0, 0, 1, 0]), np.arange(5.0), QuantSpec("max")) == 3


def test_fewer_bins_than_levels_fall_back_to_the_whole_range() -> None:
    assert calibrators.mse(np.ones(8), np.linspace(0, 2, 9), QuantSpec()) == 2.0


def test_an_empty_histogram_is_a_data_error() -> None:
    with pytest.raises(DataError, match="calibration saw no values"):
        calibrators.amax_of(np.zeros(256), np.linspace(0, 1, 257), QuantSpec())
