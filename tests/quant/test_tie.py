"""Ties: the quantizers that must share a scale are found on the exported graph, whatever it is called there."""

import pytest
import torch
from pytorch_quantization import nn as quant_nn

from tests.quant.quant_nets import Fork, noise
from trtq import qdq
from trtq.config import QuantSpec
from trtq.quant import Quantized, calibrate, insert, tie
from trtq.quant.export import to_onnx

EXAMPLE = torch.zeros(1, 3, 16, 16)


@pytest.fixture(autouse=True)
def _the_same_weights() -> None:
    torch.manual_seed(0)


def tied() -> Quantized:
    quantized = insert(Fork(), QuantSpec("max"), EXAMPLE)
    tie(quantized, EXAMPLE, 17)
    return quantized


def groups_of(ties: tuple[tuple[str, ...], ...]) -> set[frozenset[str]]:
    return {frozenset(name.removesuffix(".input_quantizer") for name in group) for group in ties}


def test_the_groups_are_the_closure_over_concat_pools_and_shared_tensors() -> None:
    groups = groups_of(tied().ties)
    # Both readers of the first Concat; its own inputs have no other reader.
    assert frozenset({"after_concat.0", "after_concat.1"}) in groups
    # A tensor read by two convolutions.
    assert frozenset({"left", "right"}) in groups
    # The pool chain: its Concat, the convolution on its first pool and the residual pairs on what it pools.
    chain = next(group for group in groups if "after_chain" in group)
    assert "after_pool.1" in chain
    assert any(name.startswith("residual_quantizers") for name in chain)


def test_tied_quantizers_are_one_object_and_calibrate_to_one_range() -> None:
    quantized = tied()
    calibrate(quantized, noise(), QuantSpec("max"), batch=4)
    for group in quantized.ties:
        assert len({id(quantized.quantizers[name]) for name in group}) == 1
    exported = to_onnx(quantized.module, EXAMPLE, 17)
    assert all(group.agrees for group in qdq.groups(exported))
    assert not qdq.unify(exported).edits


def test_without_ties_the_same_network_disagrees() -> None:
    quantized = insert(Fork(), QuantSpec("max", tie=False), EXAMPLE)
    calibrate(quantized, noise(), QuantSpec("max"), batch=4)
    assert not all(group.agrees for group in qdq.groups(to_onnx(quantized.module, EXAMPLE, 17)))


def test_probing_leaves_no_range_behind() -> None:
    quantized = tied()
    assert not any(hasattr(one, "_amax") for one in quantized.quantizers.values())
    assert not quant_nn.TensorQuantizer.use_fb_fake_quant
