"""Finding out once what many rules ask about one network, while nothing changes it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Subject = TypeVar("Subject")
Result = TypeVar("Result")

LARGEST_ARRAY_BYTES = 16384

_known: ContextVar[dict[tuple[Any, Any], Any] | None] = ContextVar("known", default=None)
_ABSENT = object()


@contextmanager
def unchanged() -> Iterator[None]:
    """Promise that no network changes in this block: functions that are `remembered` then look at each thing once."""
    token = _known.set({})
    try:
        with without_collection():
            yield
    finally:
        _known.reset(token)


def remembered(function: Callable[[Subject], Result]) -> Callable[[Subject], Result]:
    """Let `function` of one hashable thing answer from memory inside an `unchanged` block; outside it always looks."""

    @functools.wraps(function)
    def answer(subject: Subject) -> Result:
        known = _known.get()
        if known is None:
            return function(subject)
        found = known.get((function, subject), _ABSENT)
        if found is _ABSENT:
            found = function(subject)
            # Weights are as quick to read again, and would all be held.
            if getattr(found, "nbytes", 0) <= LARGEST_ARRAY_BYTES:
                known[(function, subject)] = found
        result: Result = found
        return result

    return answer


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for garbage in this block: a graph is all cycles, which stay; a third of the time goes to them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
