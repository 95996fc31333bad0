"""What a hostile case is: a file, what is asked, and the answer to expect."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.hostile_networks import Make

REFUSED, BUILT, ANY = 2, 0, None
NO_NETWORK = "no network"
STRUCTURE = "structure"
EXTERNAL = "external data"
OPERATORS = "operators"
QUANTIZATION = "quantization"
SIZES = "sizes"
NAMES = "names"
DAMAGE = "damage"


@dataclass(frozen=True)
class Case:
    """One file.

    code: the exit code to expect, None where either a refusal or an engine is right. says: a regular expression that
    the sentence must match. fix: whether `--fix` is given; the engine is then of the mended file.
    """

    name: str
    kind: str
    make: Make
    code: int | None
    says: str = ""
    fix: bool = False
