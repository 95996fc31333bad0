"""A calibration cache into an explicit Q/DQ network: what TensorRT 11 takes in place of calibrators and caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trtq import qdq
from trtq.errors import ConfigError, ModelError
from trtq.ptq.audit import Audit, activations_of, audit, unranged
from trtq.ptq.cache import INT8_MAX, CalibrationCache
from trtq.ptq.insert import insert, scale_groups
from trtq.ptq.placement import sites
from trtq.ptq.quantize import load_float
from trtq.ptq.spread import spread
from trtq.qdq import reading


@dataclass(frozen=True)
class Converted:
    """What became of a cache.

    scales: by quantized tensor, as they stand in the file: float32 numbers. tied: tensors whose scale is not the
    cache's, because a scale group has one. derived: tensors that the cache does not name, and whose scale follows from
    a neighbour's. left_float: layers that stay float, each with why. layers: how many have int8 weights.
    """

    scales: Mapping[str, float]
    layers: int
    tied: tuple[str, ...]
    derived: tuple[str, ...]
    left_float: tuple[str, ...]
    audit: Audit


def cache_to_qdq(source: Path, cache: CalibrationCache, target: Path, exclude: Sequence[str] = ()) -> Converted:
    """Put Q/DQ with the cache's scales into the float network in `source`, and write it to `target`.

    Pairs stand where `ptq.insert` puts them: on all that implicit mode may run in int8 and fuse. Weights are int8 by
    their own maxima per channel, as implicit mode takes them. What reads a tensor without a range stays float.
    exclude: globs over node names that stay float.
    Raises `ModelError` where no key fits the network or it cannot be quantized, `ConfigError` for a glob that matches
    nothing and a target that is the source, `OutputError`.
    """
    fit = audit(cache, source, exclude)
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is the input itself; choose another output")
    if not fit.matching:
        raise ModelError(f"{source}: none of the cache's {len(cache.scales)} tensors is in it; is it another network?")
    model = load_float(source)
    groups = scale_groups(model, exclude)
    ranges = _ranges(model, groups, cache)
    missing = {
        reading.label(site.node): site.tensor for site in sites(model, exclude) if site.tensor in fit.without_range
    }
    inserted = insert(model, ranges, exclude)
    qdq.save(model, target)
    scales = {tensor: float(np.float32(largest / INT8_MAX)) for tensor, largest in inserted.amax.items()}
    starts = tuple(f"{label}: " for label in missing)
    left = [line for line in inserted.left_float if not line.startswith(starts)]
    return Converted(
        scales=scales,
        layers=inserted.layers,
        tied=tuple(name for name, scale in scales.items() if scale != cache.scales.get(name, scale)),
        derived=tuple(name for name in scales if name not in cache.scales),
        left_float=(*left, *(f"{label}: tensor '{tensor}' has no range" for label, tensor in missing.items())),
        audit=fit,
    )


def _ranges(model: ir.Model, groups: Sequence[Sequence[str]], cache: CalibrationCache) -> dict[str, float]:
    """Return a range for each tensor: its own, its group's, or zero where there is none, so that it stays float."""
    known = spread(model, cache.amax, through_fused=False)
    ranges = dict.fromkeys(activations_of(model), 0.0) | known
    without = set(unranged(groups, known))
    for group in groups:
        largest = max((known[tensor] for tensor in group if tensor in known), default=0.0)
        ranges.update((tensor, largest) for tensor in group if tensor not in known and tensor not in without)
    return ranges
