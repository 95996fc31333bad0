import gc
from collections.abc import Callable

import numpy as np
import pytest

from tests.qdq.qdq_graphs import Network
from trtq import qdq
from trtq.qdq.remembering import LARGEST_ARRAY_BYTES, remembered, unchanged


@pytest.fixture
def counted() -> tuple[Callable[[int], np.ndarray], list[int]]:
    calls: list[int] = []

    @remembered
    def zeros(size: int) -> np.ndarray:
        calls.append(size)
        return np.zeros(size, np.int8)

    return zeros, calls


def test_in_a_block_each_thing_is_looked_at_once_and_outside_always(
    counted: tuple[Callable[[int], np.ndarray], list[int]],
) -> None:
    zeros, calls = counted
    for _ in range(2):
        with unchanged():
            assert zeros(1) is zeros(1)
    assert zeros(1) is not zeros(1)
    assert calls == [1, 1, 1, 1]


def test_weights_are_not_held(counted: tuple[Callable[[int], np.ndarray], list[int]]) -> None:
    zeros, calls = counted
    with unchanged():
        assert zeros(LARGEST_ARRAY_BYTES) is zeros(LARGEST_ARRAY_BYTES)
        assert zeros(LARGEST_ARRAY_BYTES + 1) is not zeros(LARGEST_ARRAY_BYTES + 1)
    assert len(calls) == 3


def test_garbage_is_collected_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="stop"), unchanged():
        assert not gc.isenabled()
        raise ValueError("stop")
    assert gc.isenabled()


def test_an_edit_between_two_looks_shows() -> None:
    network = Network()
    network.input("x")
    network.pair("x", 0.1)
    network.pair("x", 0.2)
    model = network.model()
    with unchanged():
        assert not qdq.groups(model)[0].agrees
    qdq.unify(model)
    with unchanged():
        assert qdq.groups(model)[0].agrees
