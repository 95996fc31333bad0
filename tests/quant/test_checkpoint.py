"""Quantized checkpoints come back as they were, and damaged ones are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.quant.quant_nets import Fork, noise
from trtq.config import QuantSpec
from trtq.errors import ModelError
from trtq.quant import Quantized, calibrate, insert, load_quantized, save_quantized, tie

EXAMPLE = torch.zeros(1, 3, 16, 16)
SPEC = QuantSpec("max")


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Quantized, Path]:
    net = Fork().eval()
    quantized = insert(net, SPEC, EXAMPLE)
    tie(quantized, EXAMPLE, 17)
    calibrate(quantized, noise(), SPEC, batch=4)
    save_quantized(quantized, tmp_path / "q.safetensors")
    return net, quantized, tmp_path / "q.safetensors"


def test_a_round_trip_keeps_outputs_ties_and_notes(saved: tuple[nn.Module, Quantized, Path]) -> None:
    net, quantized, path = saved
    loaded = load_quantized(net, SPEC, EXAMPLE, path)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded.module(x), quantized.module(x))
    assert loaded.ties == quantized.ties
    assert loaded.notes == quantized.notes


def test_a_switched_off_layer_stays_off(tmp_path: Path) -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.second(torch.relu(self.first(x)) * 0)
            return result

    net = Dead().eval()
    quantized = insert(net, SPEC, EXAMPLE)
    calibrate(quantized, noise(), SPEC, batch=4)
    assert quantized.notes == ("second.input_quantizer: always zero on the calibration images; its layer stays float",)
    save_quantized(quantized, tmp_path / "q.safetensors")
    loaded = load_quantized(net, SPEC, EXAMPLE, tmp_path / "q.safetensors")
    assert loaded.quantizers["second.input_quantizer"]._disabled
    assert torch.equal(loaded.module(torch.ones(1, 3, 4, 4)), quantized.module(torch.ones(1, 3, 4, 4)))


def test_what_is_not_its_checkpoint_is_refused_in_one_sentence(
    saved: tuple[nn.Module, Quantized, Path], tmp_path: Path
) -> None:
    net, _, path = saved
    cut, other = tmp_path / "cut.safetensors", tmp_path / "other.safetensors"
    cut.write_bytes(path.read_bytes()[:200])
    save_file({"x": torch.zeros(1)}, other)
    for file, message in ((cut, "cut short"), (other, "not a quantized checkpoint"), (tmp_path / "no", "no such file")):
        with pytest.raises(ModelError, match=message):
            load_quantized(net, SPEC, EXAMPLE, file)
    with pytest.raises(ModelError, match=r"of another network or recipe$"):
        load_quantized(nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), SPEC, EXAMPLE, path)
