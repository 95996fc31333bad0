"""Which keys of a calibration cache fit a network: matching, stale, and the tensors that have no range."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from trtq import qdq
from trtq.backends import onnx_file
from trtq.ptq.cache import CalibrationCache, is_unnamed
from trtq.ptq.insert import scale_groups
from trtq.ptq.quantize import load_float
from trtq.ptq.spread import spread
from trtq.qdq import reading

# A suggestion compares one name with every name: some are help, a thousand are noise.
SUGGESTIONS = 20
SUGGESTED_FROM = 5000
SUGGESTED_CHARACTERS = 300  # comparing two names takes the product of their lengths
ALIKE = 0.8


@dataclass(frozen=True)
class Audit:
    """How a cache fits a network.

    matching: keys that name an activation. stale: named keys that do not, each with the tensor that it may mean, or an
    empty string. unnamed: keys that TensorRT made up, which no ONNX file can be checked for. without_range: tensors
    that int8 needs a range of and that have none, in the cache or from a neighbour. zero: matching keys whose scale is
    zero.
    """

    matching: tuple[str, ...]
    stale: tuple[tuple[str, str], ...]
    unnamed: tuple[str, ...]
    without_range: tuple[str, ...]
    zero: tuple[str, ...]


def audit(cache: CalibrationCache, source: Path, exclude: Sequence[str] = ()) -> Audit:
    """Compare a cache's keys with the tensors of the float network in `source`.

    exclude: globs over node names that stay float, and so need no range. Raises `ModelError` for a file that is not
    valid ONNX, and what `scale_groups` raises.
    """
    onnx_file.check(source)
    tensors = activations_of(qdq.load(source))
    known = set(tensors)
    matching = tuple(name for name in cache.scales if name in known)
    stale = [name for name in cache.scales if name not in known and not is_unnamed(name)]
    free = [name for name in tensors if name not in cache.scales][:SUGGESTED_FROM]
    model = load_float(source)
    ranges = spread(model, cache.amax, through_fused=False)
    return Audit(
        matching=matching,
        stale=tuple((name, _nearest(name, free) if count < SUGGESTIONS else "") for count, name in enumerate(stale)),
        unnamed=cache.unnamed,
        without_range=unranged(scale_groups(model, exclude), ranges),
        zero=tuple(name for name in matching if cache.scales[name] == 0),
    )


def activations_of(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the network's inputs and of all that its nodes compute."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    written = [value for node in model.graph for value in node.outputs if not reading.is_constant(value)]
    return tuple(name for value in (*inputs, *written) if (name := reading.name(value)))


def unranged(groups: Sequence[Sequence[str]], ranges: Collection[str]) -> tuple[str, ...]:
    """Return the tensors of those groups that have no tensor with a range."""
    return tuple(tensor for group in groups if not any(one in ranges for one in group) for tensor in group)


def _nearest(name: str, known: Sequence[str]) -> str:
    if len(name) > SUGGESTED_CHARACTERS:
        return ""
    close = difflib.get_close_matches(
        name, [one for one in known if len(one) <= SUGGESTED_CHARACTERS], n=1, cutoff=ALIKE
    )
    return close[0] if close else ""
