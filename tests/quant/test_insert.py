"""Where quantizers go, what stays float, and that folding changes nothing."""

import pytest
import torch
from torch import nn

from tests.quant.quant_nets import Fork
from trtq.config import QuantSpec
from trtq.errors import ConfigError, ModelError
from trtq.quant import fold, insert

EXAMPLE = torch.zeros(1, 3, 16, 16)


def test_folding_keeps_the_outputs_and_drops_batchnorm() -> None:
    net, x = Fork().eval(), torch.rand(2, 3, 16, 16)
    norm = net.stem[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    norm.running_mean.uniform_(-1, 1)
    folded = fold(net)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert torch.allclose(folded(x), net(x), atol=1e-5)


def test_every_layer_input_and_the_residual_inputs_are_quantized() -> None:
    quantized = insert(Fork(), QuantSpec(), EXAMPLE)
    layers = {name for name in quantized.quantizers if name.endswith(".input_quantizer")}
    assert len(layers) == 9
    assert "head.input_quantizer" in layers
    residuals = [name for name in quantized.quantizers if name.startswith("residual_quantizers.")]
    assert len(residuals) == 2


def test_the_add_stays_fusible_with_the_convolution_at_the_end_of_the_longer_path() -> None:
    quantized = insert(Fork(), QuantSpec(), EXAMPLE)
    calls = {node.name: node for node in quantized.module.graph.nodes}
    quantized_inputs = {str(calls[name].args[0]) for name in calls if name.startswith("residual_quantizers")}
    # a + after_pool[0](...): `a` takes the pair; after_pool[1](...) + x: `x` does.
    assert not any("after_pool" in name for name in quantized_inputs)


def test_a_layer_that_forward_never_reaches_is_skipped_and_said() -> None:
    quantized = insert(Fork(), QuantSpec(), EXAMPLE)
    assert quantized.notes == ("unreached is never reached by forward: skipped",)
    assert not any("unreached" in name for name in quantized.quantizers)


def test_exclude_takes_globs_and_refuses_one_without_a_match() -> None:
    quantized = insert(Fork(), QuantSpec(exclude=("after_*",)), EXAMPLE)
    assert not any(name.startswith("after_") for name in quantized.quantizers)
    with pytest.raises(ConfigError, match=r"'heads' matches no layer; did you mean 'head'\?"):
        insert(Fork(), QuantSpec(exclude=("heads",)), EXAMPLE)


def test_a_channel_of_zeros_gets_a_scale_that_tensorrt_takes() -> None:
    net = Fork()
    nn.init.zeros_(net.left.weight)
    quantized = insert(net, QuantSpec(), EXAMPLE)
    assert (quantized.module.state_dict()["left._weight_quantizer._amax"] > 0).all()


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Poisoned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        nn.init.constant_(self.conv.weight, float("nan"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(x)
        return result


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (Branching(), (1, 3, 8, 8), r"Branching: forward cannot be traced"),
        (Poisoned(), (1, 3, 8, 8), r"conv: its weights hold NaN"),
        (nn.ReLU(), (1, 3, 8, 8), r"no Conv2d or Linear layer"),
        (Fork(), (1, 4, 16, 16), r"does not take an input of shape \(1, 4, 16, 16\)"),
    ],
)
def test_networks_that_cannot_be_quantized_get_one_sentence(
    net: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        insert(net, QuantSpec(), torch.zeros(shape))
    assert "\n" not in str(caught.value)
