"""PTQ: a float ONNX file and images in, a Q/DQ file with calibrated ranges out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from trtq import qdq, rules
from trtq.config import Calibrator, QuantSpec, did_you_mean
from trtq.errors import ConfigError
from trtq.ptq.calibrators import METHODS, amax_of, mse, sqnr_db
from trtq.ptq.collect import MEMORY_MIB, collect_histograms
from trtq.ptq.insert import Insertion, check_form, insert, scale_groups
from trtq.ptq.ranges import Progress, max_of
from trtq.ptq.weights import Weights

Array = npt.NDArray[Any]
Images = Iterable[npt.NDArray[Any]]
# 8 bits of a well-behaved tensor leave 30 to 45 dB.
LOW_SQNR_DB = 15
NOTED_LOSS_DB = 6
EMBEDDED_LIMIT_BYTES = 1 << 30  # half of what protobuf takes
HYGIENE_RULES = tuple(rule.code for rule in rules.RULES if rule.code.startswith("TQ9") and rule.fix is not None)


def quantize_file(
    source: Path,
    target: Path,
    images: Images,
    *,
    calibrator: Calibrator = "mse",
    percentile: float = 99.99,
    exclude: Sequence[str] = (),
    weights: Weights = "int8",
    progress: Progress | None = None,
    threads: int = 1,
    memory_mib: int = MEMORY_MIB,
) -> Insertion:
    """Quantize the float network in `source` by its ranges on `images`, and write it to `target` atomically.

    The network is cleaned first (constants, Identity, BatchNormalization folded into Conv); then pairs are placed, as
    `insert` says, and each scale group takes one range, from the magnitudes of all its tensors together.
    images: float32 batches (n, ...) for the network's only input, read once; where they have a length, `progress` is
    called with how many batches are done, and of how many. calibrator: how a range follows from magnitudes, see
    `trtq.ptq.calibrators`; percentile is in percent. Memory: see `collect_histograms`.
    Raises `ConfigError` when `target` is `source`, for an unknown calibrator or percentile, and for what `insert`
    refuses; `ModelError`, `DataError`, `OutputError`, `MissingBackendError`.
    """
    _check(source, target, calibrator, percentile)
    model = load_float(source)
    check_form(model, weights)
    spec = QuantSpec(calibrator=calibrator, percentile=percentile)
    groups = scale_groups(model, exclude)
    found = calibrate(model, groups, images, spec, progress=progress, threads=threads, memory_mib=memory_mib)
    amax = {tensor: largest for group, largest in zip(groups, found.ranges, strict=True) for tensor in group}
    inserted = insert(model, amax, exclude, weights=weights)
    save_quantized(model, target)
    return dataclasses.replace(inserted, notes=(*inserted.notes, *found.notes))


def save_quantized(model: ir.Model, target: Path) -> None:
    """Write a quantized network to `target` atomically, without what quantizing left unused.

    What is still in an external data file, biases for the most part, moves into the file where it is small enough:
    otherwise all the float weights would have to stay beside it. Raises `OutputError`, `ModelError`.
    """
    rules.mend(model, select=HYGIENE_RULES)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(one.nbytes for one in tensors if isinstance(one, ir.ExternalTensor)) < EMBEDDED_LIMIT_BYTES:
        ir.external_data.load_to_model(model)
    qdq.save(model, target)


def _check(source: Path, target: Path, calibrator: str, percentile: float) -> None:
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is the input itself; choose another output")
    if calibrator not in METHODS:
        hint = did_you_mean(calibrator, METHODS) or f"; calibrators are {', '.join(METHODS)}"
        raise ConfigError(f"calibrator '{calibrator}' is not known{hint}")
    if not 0 < percentile <= 100:
        raise ConfigError(f"percentile is {percentile}; it must be greater than 0 and at most 100")


def load_float(source: Path) -> ir.Model:
    """Read a float network in the plain form that is quantized: cleaned, BatchNormalization folded into Conv."""
    model = qdq.load(source)
    qdq.clean(model)
    rules.mend(model, select=["TQ204"])
    return model


@dataclass(frozen=True)
class Calibrated:
    """The range of each group of tensors, 0 for one that is all zero, and notes on ranges that cut away too much."""

    ranges: tuple[float, ...]
    notes: tuple[str, ...] = ()


def calibrate(
    model: ir.Model,
    groups: Sequence[Sequence[str]],
    images: Images,
    spec: QuantSpec,
    *,
    progress: Progress | None = None,
    threads: int = 1,
    memory_mib: int = MEMORY_MIB,
) -> Calibrated:
    """Find one range for each group of tensors of a float network, from all their magnitudes on `images` together.

    Raises as `collect_histograms` does.
    """
    if spec.calibrator == "max":
        tensors = tuple(dict.fromkeys(tensor for group in groups for tensor in group))
        largest = max_of(model, tensors, images, threads=threads, progress=progress)
        return Calibrated(tuple(max(largest[tensor] for tensor in group) for group in groups))
    found = collect_histograms(model, groups, images, threads=threads, memory_mib=memory_mib, progress=progress)
    tables = [one.table() for one in found]
    ranges = tuple(amax_of(*table, spec) if one.largest else 0.0 for one, table in zip(found, tables, strict=True))
    noted = (
        _note(group[0], table, amax, spec) for group, table, amax in zip(groups, tables, ranges, strict=True) if amax
    )
    return Calibrated(ranges, tuple(filter(None, noted)))


def _note(tensor: str, table: tuple[Array, Array], amax: float, spec: QuantSpec) -> str:
    """Return what is said of a range that loses much more of a tensor than another would, or an empty string."""
    kept = sqnr_db(*table, amax)
    if kept >= LOW_SQNR_DB:
        return ""
    best = mse(*table, spec)
    possible = sqnr_db(*table, best)
    if possible - kept < NOTED_LOSS_DB:
        return ""
    return (
        f"tensor '{tensor}': {spec.calibrator} takes the range {amax:.3g}, which leaves {kept:.1f} dB of it;"
        f" mse would take {best:.3g} and leave {possible:.1f} dB"
    )
