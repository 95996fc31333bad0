"""TensorRT's words for data types, alone or within a sentence, to ours."""

from __future__ import annotations

import re

from trtq.layers.graph import DType

DTYPES: dict[str, DType] = {
    "float": "float32", "fp32": "float32", "half": "float16", "fp16": "float16", "bf16": "bfloat16",
    "bfloat16": "bfloat16", "fp8": "fp8", "fp4": "fp4", "int4": "int4", "int8": "int8", "uint8": "uint8",
    "int32": "int32", "int64": "int64", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+[0-9]*")


def dtype(text: str) -> DType:
    """Return the data type that a bare word or a format sentence names, "unknown" where it names none.

    The type stands anywhere in the sentence (`Channel major FP16 format where channel % 8 == 0`).
    """
    for word in _WORD.findall(text):
        if word.lower() in DTYPES:
            return DTYPES[word.lower()]
    return "unknown"
