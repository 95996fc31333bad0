"""What trtexec exports of its measurements: `--exportTimes` (each query) and `--exportProfile` (each layer)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtq.errors import ModelError
from trtq.layers.source import Source, read_source

# In the order of the fields of TrtexecTimes.
TIME_KEYS = ("latencyMs", "computeMs", "h2dMs", "d2hMs", "startComputeMs", "endComputeMs")
OTHER_KEYS = ("startEnqMs", "endEnqMs", "startH2dMs", "endD2hMs")


@dataclass(frozen=True)
class TrtexecTimes:
    """`--exportTimes`: one entry a query, in microseconds, in the order of the queries.

    Those of the warm-up are among them (8.4 writes them all; the clock starts with the warm-up). The last four fields
    are empty where the file does not have them.
    """

    latency_us: tuple[float, ...]
    compute_us: tuple[float, ...]
    h2d_us: tuple[float, ...]
    d2h_us: tuple[float, ...]
    start_compute_us: tuple[float, ...]
    end_compute_us: tuple[float, ...]
    start_enqueue_us: tuple[float, ...] = ()
    end_enqueue_us: tuple[float, ...] = ()
    start_h2d_us: tuple[float, ...] = ()
    end_d2h_us: tuple[float, ...] = ()


@dataclass(frozen=True)
class ProfileRow:
    """A layer's time of one run in microseconds; the median exists from TensorRT 8.4 on."""

    name: str
    mean_us: float
    median_us: float | None

    @property
    def time_us(self) -> float:
        """The median, or the mean where there is none."""
        return self.mean_us if self.median_us is None else self.median_us


@dataclass(frozen=True)
class TrtexecProfile:
    """`--exportProfile`: rows in execution order, and over how many runs (None where the file does not tell)."""

    rows: tuple[ProfileRow, ...]
    runs: int | None

    @property
    def has_medians(self) -> bool:
        """Whether every row has a median."""
        return all(row.median_us is not None for row in self.rows)


def read_times(path: Path) -> TrtexecTimes:
    """Read what `--exportTimes` wrote; raises `ModelError` for any other file."""
    source = read_source(path)
    if not is_times(source.document):
        raise ModelError(f"{path}: is not what trtexec --exportTimes writes; export it again")
    return times(source)


def times(source: Source) -> TrtexecTimes:
    """Return the times in a file's content; raises `ModelError`."""
    rows = source.document
    others = [key for key in OTHER_KEYS if all(key in row for row in rows)]
    keys = (*TIME_KEYS, *(others if others == list(OTHER_KEYS) else ()))
    return TrtexecTimes(*(tuple(_microseconds(row, key, source.path) for row in rows) for key in keys))


def first_counted(times: TrtexecTimes, warm_up_us: float) -> int:
    """Return the place of the first query behind the warm-up, with which trtexec's clock starts; their number if none.

    Source: trtexec's reporting.cpp, whose summary counts from there.
    """
    late = (place for place, start in enumerate(times.start_compute_us) if start >= warm_up_us)
    return next(late, len(times.start_compute_us))


def wall_us(times: TrtexecTimes, first: int) -> float:
    """Return the time from the copy in of query `first` to the copy out of the last one."""
    starts, ends = times.start_h2d_us or times.start_compute_us, times.end_d2h_us or times.end_compute_us
    return ends[-1] - starts[first]


def enqueue_us(times: TrtexecTimes) -> tuple[float, ...]:
    """Return what enqueueing each query took on the host; empty where the file does not tell."""
    pairs = zip(times.start_enqueue_us, times.end_enqueue_us, strict=True)
    return tuple(end - start for start, end in pairs)


def read_profile(path: Path) -> TrtexecProfile:
    """Read what `--exportProfile` wrote, quotes in names and all; raises `ModelError` for any other file."""
    return profile(read_source(path))


def profile(source: Source) -> TrtexecProfile:
    """Return the profile in a file's content; raises `ModelError`."""
    if not is_profile(source.document):
        raise ModelError(f"{source.path}: is not a per-layer profile of trtexec; use --exportProfile")
    counts = [row["count"] for row in source.document if "count" in row and "name" not in row]
    rows = [row for row in source.document if "name" in row]
    try:
        return TrtexecProfile(tuple(map(_profile_row, rows)), int(counts[0]) if counts else None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{source.path}: is not a whole per-layer profile of trtexec ({error!r}); use --exportProfile"
        ) from error


def is_profile(document: Any) -> bool:
    """Tell whether a JSON value is what `--exportProfile` writes."""
    return (
        isinstance(document, list)
        and all(isinstance(row, dict) for row in document)
        and any("name" in row and ("averageMs" in row or "timeMs" in row) for row in document)
    )


def is_times(document: Any) -> bool:
    """Tell whether a JSON value is what `--exportTimes` writes."""
    return isinstance(document, list) and bool(document) and all(map(_is_query, document))


def _profile_row(row: dict[str, Any]) -> ProfileRow:
    median = row.get("medianMs")
    return ProfileRow(
        name=str(row["name"]),
        mean_us=_real_us(row["averageMs"]),
        median_us=None if median is None else _real_us(median),
    )


def _microseconds(row: dict[str, Any], key: str, path: Path) -> float:
    try:
        return _real_us(row[key])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: a query's {key} is missing or no number ({error!r}); export it again") from error


def _real_us(value_ms: Any) -> float:
    if isinstance(value_ms, bool) or not isinstance(value_ms, (int, float)):
        raise TypeError(f"{value_ms!r:.60} is no number")
    # To the picosecond: 1000 times a decimal fraction is no decimal fraction.
    return round(1000 * float(value_ms), 6)


def _is_query(row: Any) -> bool:
    return isinstance(row, dict) and "computeMs" in row
