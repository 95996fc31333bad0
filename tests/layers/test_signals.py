"""Signals, on layers written out."""

from __future__ import annotations

import pytest

from trtq.layers import kinds
from trtq.layers.graph import DType, Layer, Tensor
from trtq.layers.signals import signals


def kernel(name: str, inputs: list[DType], outputs: list[DType], kind: str = "kgen") -> Layer:
    return Layer(
        name,
        kind,
        tuple(Tensor(f"i{n}", (1, 8), dtype) for n, dtype in enumerate(inputs)),
        tuple(Tensor(f"o{n}", (1, 8), dtype) for n, dtype in enumerate(outputs)),
    )


@pytest.mark.parametrize(
    ("layer", "move", "twice", "again"),
    [
        (kernel("__myl_MoveMove_myl0_13", ["int8"], ["int8", "int8"]), True, False, False),
        (kernel("__myl_ReshTran_myl0_2", ["int8"], ["int8"]), True, False, False),
        (kernel("__myl_MulMinMaxRounCast_myl0_0", ["float32"], ["int8"]), False, False, False),
        (
            kernel("__myl_MulAddReluMulMinMaxRounCastCastMul_myl0_2", ["float32"], ["int8", "float32"]),
            False,
            True,
            False,
        ),
        (kernel("__myl_MulMinMaxRounCastMulMinMaxRounCast_myl0_2", ["float32"], ["int8", "int8"]), False, True, True),
        (kernel("__myl_CastMulMulMinMaxRounCast_myl0_9", ["int8"], ["int8"]), False, False, True),
        (kernel("__myl_CastMulAddEtc_myl0_9", ["int8"], ["int8"]), False, False, True),
        (kernel("__myl_CastMulMulAddRounCast_myl0_9", ["int8", "float16"], ["int8"]), False, False, False),
        (kernel("__mye128_pooling_myl0_3", ["int8"], ["int8"], "maxpool"), False, False, False),
        (kernel("conv_myl0_3", ["int8"], ["float32"], "correlation"), False, False, False),
    ],
)
def test_kernels(layer: Layer, move: bool, twice: bool, again: bool) -> None:
    assert (kinds.is_move(layer), kinds.writes_twice(layer), kinds.requantizes(layer)) == (move, twice, again)


def test_int8_share_counts_compute_operations_only() -> None:
    found = signals(
        [
            kernel("a", ["int8"], ["float32"], "correlation"),
            kernel("b", ["float16"], ["float16"], "runtime_fusion"),
            kernel("c", ["float32"], ["float32"], "deconv"),
            kernel("d", ["int8"], ["float32"], "gemm"),
            kernel("e", ["int8"], ["int8"], "maxpool"),
        ],
        "compiled",
    )
    assert found.int8_share == 0.5
    assert found.float_writes == 4
    assert found.traffic_bytes == 8 * (1 + 4 + 2 + 2 + 4 + 4 + 1 + 4 + 1 + 1)


def test_other_origins_have_other_signals() -> None:
    measured = signals([kernel("q", ["float32"], ["int8"], "Reformat QDQ")], "measured")
    assert (measured.conversions, measured.double_writes, measured.requantizes) == (1, None, None)
    assert measured.int8_share is None


def test_unknown_tensors_give_no_figures() -> None:
    found = signals([Layer("conv1", "unknown", (), ())], "measured", conversions_known=False)
    assert (found.conversions, found.float_writes, found.traffic_bytes, found.int8_share) == (None,) * 4
    assert found.layers == 1
