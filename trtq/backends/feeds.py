"""The check that every feed passes before a session runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from trtq.backends import TensorSpec
from trtq.errors import ModelError


def check_feeds(feeds: Mapping[str, npt.NDArray[Any]], inputs: tuple[TensorSpec, ...], where: str) -> None:
    """Raise `ModelError` where the arrays are not those that the inputs take: other names, dtypes or shapes."""
    wanted, given = {spec.name for spec in inputs}, set(feeds)
    if wanted != given:
        raise ModelError(f"{where}: wants inputs {sorted(wanted)}, but was given {sorted(given)}")
    for spec in inputs:
        array = feeds[spec.name]
        fits = len(array.shape) == len(spec.dims) and all(
            want in (-1, have) for want, have in zip(spec.dims, array.shape, strict=True)
        )
        if not fits or array.dtype.name != spec.dtype:
            raise ModelError(
                f"{where}: input '{spec.name}' takes {spec.dtype} {list(spec.dims)}, "
                f"but was given {array.dtype.name} {list(array.shape)}"
            )
