"""Shape ranges as people write them: `images=1x3x64x64,8x3x64x64,16x3x64x64`, inputs separated by semicolons."""

from __future__ import annotations

from trtq.backends import ShapeRange
from trtq.errors import ConfigError


def parse_profile(text: str) -> tuple[ShapeRange, ...]:
    """Return one optimization profile: for each input its smallest, usual and largest shape, or one for all three.

    Raises `ConfigError` for a text of another form.
    """
    return tuple(_range(part, text) for part in text.split(";"))


def _range(part: str, text: str) -> ShapeRange:
    name, _, shapes = part.rpartition("=")
    try:
        parsed = [tuple(int(dim) for dim in shape.split("x")) for shape in shapes.split(",")]
    except ValueError:
        parsed = []
    if not name or len(parsed) not in (1, 3):
        raise ConfigError(
            f"shapes '{text}' are not of the form INPUT=SMALLEST,USUAL,LARGEST, as in "
            "images=1x3x64x64,8x3x64x64,16x3x64x64"
        )
    return ShapeRange(name, *(parsed if len(parsed) == 3 else parsed * 3))
