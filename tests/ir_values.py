"""What must be there in a graph that a test looks at: the node behind a value, and the array that it holds."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.conftest import present


def producer(value: ir.Value | None) -> ir.Node:
    return present(present(value).producer())


def stored(value: ir.Value | None) -> np.ndarray:
    """Return what a value holds in the file."""
    return present(present(value).const_value).numpy()
