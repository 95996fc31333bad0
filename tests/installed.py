"""Whether TensorRT-RTX and TensorRT load, for tests that ask: a package whose libraries are missing does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trtq.backends import rtx, trt
from trtq.errors import MissingBackendError


def _loads(version: Callable[[], str]) -> bool:
    try:
        version()
    except MissingBackendError:
        return False
    return True


HAS_RTX, HAS_TRT = _loads(rtx.version), _loads(trt.version)
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="TensorRT-RTX is not installed (pip install trtq[rtx])")
