"""Colours of precisions, one hue a precision in light and dark, from Okabe and Ito's set for colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trtq.layers.graph import DType, Layer

Precision = Literal["int8", "narrow", "float16", "float32", "float", "mixed", "unknown"]


@dataclass(frozen=True)
class Hue:
    """A line colour and a background tint, for light and for dark paper."""

    line: str
    tint: str
    dark_line: str
    dark_tint: str


HUES: dict[Precision, Hue] = {
    "int8": Hue("#0072b2", "#e3f1fa", "#56b4e9", "#12303f"),
    "narrow": Hue("#00795a", "#def5ed", "#35c79d", "#10332a"),
    "float16": Hue("#b87f00", "#fdf3d9", "#e6b23c", "#3a2f12"),
    "float32": Hue("#c4500a", "#fdebe0", "#f08a4b", "#40251a"),
    "float": Hue("#c4500a", "#fdebe0", "#f08a4b", "#40251a"),
    "mixed": Hue("#a4588a", "#f8e8f2", "#dd9cc4", "#3b2534"),
    "unknown": Hue("#6b7280", "#f0f1f3", "#9aa3ae", "#2a2f36"),
}
MEANINGS: dict[Precision, str] = {
    "int8": "int8",
    "narrow": "fp8, fp4 or int4",
    "float16": "float16 or bfloat16",
    "float32": "float32",
    "float": "float, width not known",
    "mixed": "inputs of several dtypes",
    "unknown": "another or unknown dtype",
}
PRECISIONS: dict[DType, Precision] = {
    "int8": "int8", "fp8": "narrow", "fp4": "narrow", "int4": "narrow", "float16": "float16", "bfloat16": "float16",
    "float32": "float32", "float": "float",
}  # fmt: skip


def precision_of(dtype: DType) -> Precision:
    """Return the colour class of a tensor's dtype."""
    return PRECISIONS.get(dtype, "unknown")


def precision(layer: Layer) -> Precision:
    """Return what a layer computes in: the dtype that its inputs share (its outputs' where it reads nothing)."""
    found = {precision_of(tensor.dtype) for tensor in layer.inputs or layer.outputs}
    if not found:
        return "unknown"
    return found.pop() if len(found) == 1 else "mixed"
