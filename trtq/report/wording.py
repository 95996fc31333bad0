"""Names and figures as people read them: printable, short, with units."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

from trtq.layers import kinds
from trtq.layers.graph import Layer

MISSING = "–"
MAX_PRINTED_CHARACTERS = 600
# Control, format (bidirectional overrides among them), surrogate, unassigned, line and paragraph separators.
UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
# TensorRT cuts each operation to four letters in the names of its generated kernels.
ROUNDING = re.compile(r"(?:Mul|Div)?(?:MinMaxRoun|RounMinMax|RounMaxMin|MaxMinRoun)(?:Cast)?")
SPELLED_OUT = {
    "Conc": "Concat", "Corr": "Conv", "Sigm": "Sigmoid", "Slic": "Slice", "Resh": "Reshape", "Tran": "Transpose",
    "Resi": "Resize", "Roun": "Round", "Redu": "Reduce", "Etc": "…",
}  # fmt: skip
KINDS = {"correlation": "Conv", "deconv": "ConvTranspose", "gemm": "Gemm", "maxpool": "MaxPool", "avgpool": "AvgPool"}
WORD = re.compile(r"[A-Z][a-z0-9]*")
QUANTIZER = re.compile(r"QuantizeLinear|quantizer", re.IGNORECASE)


def printable(text: str, limit: int = MAX_PRINTED_CHARACTERS) -> str:
    """Return `text` cut in the middle at `limit`, with U+FFFD for all that steers a terminal or page."""
    short = shorten(text, limit)
    if short.isprintable():
        return short
    return "".join(
        "\ufffd" if unicodedata.category(character) in UNPRINTABLE_CATEGORIES else character for character in short
    )


def shorten(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters by an ellipsis in the middle: both ends of a node's name tell it apart."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 3 // 5
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def shorten_words(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters at the end, between words where it has any."""
    if len(text) <= limit:
        return text
    words = text[: limit - 1].rpartition(" ")[0]
    return f"{words or text[: limit - 2]} …"


def figure(value: float | int | None, digits: int = 0) -> str:
    """Return a number with thin-spaced thousands, or a dash where there is none."""
    return MISSING if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def bytes_text(size_bytes: int | None) -> str:
    """Return a size in B, kB or MB (powers of ten) with three significant digits."""
    if size_bytes is None:
        return MISSING
    if abs(size_bytes) < 1000:
        return f"{size_bytes} B"
    value, unit = (size_bytes / 1e3, "kB") if abs(size_bytes) < 999_500 else (size_bytes / 1e6, "MB")
    return f"{figure(value, 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0)} {unit}"


def signed(text: str, value: float | int | None) -> str:
    """Return `text`, the wording of `value`, with a sign that stands out: + or a true minus."""
    return f"+{text}" if value is not None and value > 0 else text.replace("-", "−")


def cost_text(cost_us: float | None, cost_bytes: int | None) -> str:
    """Return a signed cost: the time where it was profiled, else the bytes moved."""
    if cost_us is not None:
        return signed(f"{figure(cost_us, 1)} µs", cost_us)
    return signed(bytes_text(cost_bytes), cost_bytes)


def percent(share: float | None, digits: int = 0) -> str:
    """Return a fraction as a percentage."""
    return MISSING if share is None else f"{share * 100:.{digits}f}\u202f%"


def scale_text(scale: float | None) -> str:
    """Return a quantizer's scale with four significant digits."""
    return MISSING if scale is None else f"{scale:#.4g}"


def dims_text(dims: Sequence[int]) -> str:
    """Return dimensions as 1×64×80×80; a dynamic one is a question mark, a scalar says so."""
    return "×".join("?" if dim < 0 else str(dim) for dim in dims) or "scalar"


def operation(layer: Layer) -> str:
    """Return what a layer computes in a few words: the steps of a generated kernel spelled out, else its kind."""
    steps = ROUNDING.sub("Quantize", "".join(kinds.operations(layer)))
    return " ".join(_counted(WORD.findall(steps))) or KINDS.get(layer.kind, layer.kind)


def node_name(layer: Layer) -> str:
    """Return the shortest ONNX node name of a layer that is not a quantizer's; "" when the layer names none."""
    meaningful = [name for name in layer.onnx_nodes if not QUANTIZER.search(name)]
    named = [name.strip("/") for name in meaningful or layer.onnx_nodes]
    return min(filter(None, named), key=lambda name: (len(name), name), default="")


def _counted(words: Iterable[str]) -> list[str]:
    runs = [(SPELLED_OUT.get(word, word), len(list(run))) for word, run in groupby(words)]
    return [word if count == 1 else f"{word}×{count}" for word, count in runs]
