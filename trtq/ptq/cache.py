"""TensorRT's calibration cache: a version header, then one line a tensor, `name: float32 scale in hexadecimal`."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trtq import files
from trtq.errors import ConfigError, ModelError

INT8_MAX = 127
ALGORITHM = "EntropyCalibration2"
LIMIT_MIB = 64  # a line is some fifty bytes: the largest networks have caches of a few hundred KiB
QUOTED_CHARACTERS = 60
HEADER = re.compile(r"TRT-(\w{1,12})-(\w{1,64})")
UNNAMED = re.compile(r"\(Unnamed Layer\* \d+\)")


@dataclass(frozen=True)
class CalibrationCache:
    """What a cache holds: `scales` are float32 numbers, amax / 127, by tensor in the file's order.

    version: digits of the TensorRT release that wrote it and alone takes it, as "8601" or "100300". algorithm: the
    calibrator's name for itself. A scale of zero belongs to a tensor that calibration saw only zeros in.
    """

    version: str
    algorithm: str
    scales: Mapping[str, float]

    @property
    def amax(self) -> dict[str, float]:
        """The largest absolute value by tensor: dividing it by 127 in double precision gives the exact scale back."""
        return {name: scale * INT8_MAX for name, scale in self.scales.items()}

    @property
    def unnamed(self) -> tuple[str, ...]:
        """The keys that TensorRT made up for tensors that the network does not name."""
        return tuple(name for name in self.scales if is_unnamed(name))


def is_unnamed(key: str) -> bool:
    """Tell whether a key is one that TensorRT made up: `(Unnamed Layer* 8) [Constant]_output`."""
    return UNNAMED.match(key) is not None


def read_cache(path: Path) -> CalibrationCache:
    """Read a calibration cache; raises `ModelError` for a file that is missing, too large, or not one."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{path}: is not a file; give a calibration cache")
        if size > LIMIT_MIB << 20:
            raise ModelError(f"{path}: has {size >> 20} MiB; a calibration cache has less than {LIMIT_MIB}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ModelError(f"{path}: is not a calibration cache: it is not text") from None
    return parse_cache(text, str(path))


def parse_cache(text: str, where: str = "calibration cache") -> CalibrationCache:
    """Read the text of a calibration cache; `where` begins each message. Raises `ModelError`.

    Blank lines and Windows line ends are passed over; a tensor may be repeated with the same scale.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    header = HEADER.fullmatch(lines[0].strip())
    if header is None:
        raise ModelError(
            f"{where}: is not a calibration cache: its first line is {_quoted(lines[0])}, not 'TRT-8601-{ALGORITHM}' "
            "or the like"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, scale = _entry(line, f"{where}: line {number}")
        if scales.setdefault(name, scale) != scale:
            raise ModelError(f"{where}: line {number} gives {_quoted(name)} another scale than a line before; keep one")
    return CalibrationCache(header[1], header[2], scales)


def cache_text(cache: CalibrationCache) -> str:
    """Return the text of a cache, each scale rounded to float32.

    Raises `ModelError` for a name that is empty or breaks the line, or a scale that is negative or not finite.
    """
    return "".join(f"{line}\n" for line in (f"TRT-{cache.version}-{cache.algorithm}", *_lines(cache.scales)))


def write_cache(path: Path, cache: CalibrationCache) -> None:
    """Write a cache atomically; raises what `cache_text` raises, and `OutputError`."""
    files.write_text(path, cache_text(cache))


def header_version(release: str) -> str:
    """Return how a cache's header spells a TensorRT release: 8.6.1 is "8601", 10.3.0 is "100300".

    TensorRT before 10 counts major * 1000 + minor * 100 + patch, from 10 on major * 10000 (NvInferVersion.h).
    Raises `ConfigError` for what is not a release, or one without calibrators (11 and later).
    """
    found = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?(?:\.\d+)*", release)
    if found is None:
        raise ConfigError(f"TensorRT '{release}': give a release such as 8.6.1 or 10.3.0")
    major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
    if not 7 <= major <= 10:
        raise ConfigError(f"TensorRT {release} takes no calibration cache: 7 to 10 do; later ones take Q/DQ alone")
    return str(major * (10_000 if major >= 10 else 1000) + minor * 100 + patch)


def _entry(line: str, where: str) -> tuple[str, float]:
    name, _, digits = line.rpartition(":")
    if not name or not re.fullmatch(r"[0-9a-fA-F]{1,8}", digits.strip()):
        raise ModelError(f"{where} is {_quoted(line)}, not 'tensor: scale' with the scale as hexadecimal float32")
    (scale,) = struct.unpack(">f", int(digits, 16).to_bytes(4, "big"))
    _check(name, scale, where)
    return name, scale


def _lines(scales: Mapping[str, float]) -> Iterator[str]:
    for name, scale in scales.items():
        if not name or "\n" in name:
            raise ModelError(f"tensor {_quoted(name)} cannot stand in a calibration cache; give it a name of one line")
        _check(name, scale, "calibration cache")
        try:
            yield f"{name}: {struct.pack('>f', scale).hex()}"
        except OverflowError:
            raise ModelError(f"tensor {_quoted(name)} has the scale {scale}, which float32 does not hold") from None


def _check(name: str, scale: float, where: str) -> None:
    if not math.isfinite(scale) or math.copysign(1, scale) < 0:
        raise ModelError(f"{where}: tensor {_quoted(name)} has the scale {scale}; a scale is finite and not negative")


def _quoted(text: str) -> str:
    """Return `text` as a message may hold it: escaped, and cut."""
    escaped = repr(text[:QUOTED_CHARACTERS])[1:-1]
    return f"'{escaped}'" if len(escaped) <= QUOTED_CHARACTERS >= len(text) else f"'{escaped[:QUOTED_CHARACTERS]}…'"
