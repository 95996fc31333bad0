"""QAT: distillation brings the quantized network nearer to its float twin, the same way each time."""

import dataclasses

import pytest
import torch
from pytorch_quantization.nn import TensorQuantizer

from tests.quant.quant_nets import Fork, noise
from trtq.config import FinetuneSpec, QuantSpec
from trtq.errors import DataError, ModelError
from trtq.quant import calibrate, finetune, fold, insert, tie
from trtq.quant.calibrate import check_ranges

EXAMPLE = torch.zeros(1, 3, 16, 16)
SPEC = FinetuneSpec(iterations=60, batch=8, learning_rate=2e-3, warmup_iterations=5)


def train(bits: int = 8) -> tuple[list[float], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    net = Fork().eval()
    quantized = insert(net, QuantSpec("max"), EXAMPLE)
    tie(quantized, EXAMPLE, 17)
    for quantizer in quantized.module.modules():
        if isinstance(quantizer, TensorQuantizer):
            quantizer._num_bits = bits
    calibrate(quantized, noise(), QuantSpec("max"), batch=4)
    before = {name: one for name, one in quantized.module.state_dict().items() if name.endswith("_amax")}
    losses = finetune(quantized, fold(net), noise(), SPEC, seed=1)
    after = quantized.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "ranges must stay as calibrated"
    return losses, after


def test_training_lowers_the_error_at_four_bits() -> None:
    losses, _ = train(bits=4)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_same_seed_gives_the_same_weights() -> None:
    (first, one), (second, other) = train(), train()
    assert first == second
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_divergence_and_an_empty_set_are_said() -> None:
    net = Fork().eval()
    quantized = insert(net, QuantSpec("max"), EXAMPLE)
    with pytest.raises(ModelError, match="has no calibrated range"):
        check_ranges(quantized)
    calibrate(quantized, noise(), QuantSpec("max"), batch=4)
    with pytest.raises(DataError, match="training set is empty"):
        finetune(quantized, fold(net), noise(0), SPEC, seed=0)
    wild = dataclasses.replace(SPEC, learning_rate=1e30)
    with pytest.raises(ModelError, match=r"diverged; lower finetune\.learning_rate"):
        finetune(quantized, fold(net), noise(), wild, seed=0)
