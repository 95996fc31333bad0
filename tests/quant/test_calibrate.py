"""Calibration: every method gives each quantizer a finite range, in one pass."""

import pytest
import torch

from tests.quant.quant_nets import Fork, noise
from trtq.config import Calibrator, QuantSpec
from trtq.errors import DataError, ModelError
from trtq.quant import calibrate, insert, tie

EXAMPLE = torch.zeros(1, 3, 16, 16)


def ranges(calibrator: Calibrator) -> dict[str, float]:
    torch.manual_seed(0)
    quantized = insert(Fork(), QuantSpec(calibrator), EXAMPLE)
    tie(quantized, EXAMPLE, 17)
    seen: list[int] = []
    calibrate(quantized, noise(), QuantSpec(calibrator), batch=4, progress=lambda done, _: seen.append(done))
    assert seen == [4, 8]
    return {name: float(one._amax) for name, one in quantized.quantizers.items()}


@pytest.mark.parametrize("calibrator", ["percentile", "mse", "entropy"])
def test_a_histogram_method_stays_inside_the_largest_value(calibrator: Calibrator) -> None:
    largest, chosen = ranges("max"), ranges(calibrator)
    assert chosen.keys() == largest.keys()
    # A bin's width above the largest value is the histogram's own rounding.
    assert all(0 < chosen[name] <= largest[name] * 1.01 for name in chosen)


def test_batches_do_not_change_a_maximum() -> None:
    spec = QuantSpec("max")
    found = []
    for batch in (1, 8):
        torch.manual_seed(0)
        quantized = insert(Fork(), spec, EXAMPLE)
        calibrate(quantized, noise(), spec, batch=batch)
        found.append([float(one._amax) for one in quantized.quantizers.values()])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_nothing_to_see_and_infinite_values_are_said() -> None:
    quantized = insert(Fork(), QuantSpec("max"), EXAMPLE)
    with pytest.raises(DataError, match="calibration set is empty"):
        calibrate(quantized, noise(0), QuantSpec("max"), batch=4)
    images = noise()
    images.images[0] = float("inf")
    with pytest.raises(ModelError, match="calibration met NaN or infinite values"):
        calibrate(quantized, images, QuantSpec("max"), batch=4)
