"""Short recounts of what trtq's readers report, from the files alone: none of them imports trtq.layers.

Each returns None for content that a reader has to refuse.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

WORD_BYTES = {
    "float": 4, "fp32": 4, "half": 2, "fp16": 2, "bf16": 2, "bfloat16": 2, "fp8": 1, "int8": 1, "uint8": 1, "int32": 4,
    "int64": 8, "uint64": 8, "bool": 1, "int4": 0.5, "fp4": 0.5,
}  # fmt: skip
NAMES = {
    "float": "float32", "fp32": "float32", "half": "float16", "fp16": "float16", "bf16": "bfloat16", "": "unknown",
}  # fmt: skip
FLOATS = ("float", "fp32", "half", "fp16", "bf16", "bfloat16")
SYNCHRONIZATION = ("signal", "wait", "signal_and_wait")


def layers(document: Any) -> dict[str, Any] | None:
    """Recount an inspector's JSON: layers, tensors by dtype, conversions, bytes."""
    if not isinstance(document, dict) or not isinstance(document.get("Layers"), list):
        return None
    rows = document["Layers"]
    if not rows or not all(isinstance(row, str) or is_layer(row) for row in rows):
        return None
    lowest = min(profile_of(row) for row in rows)
    kept = [row for row in rows if profile_of(row) == lowest]
    kept = [row for row in kept if isinstance(row, str) or row["LayerType"] not in SYNCHRONIZATION]
    if not kept:
        return None
    objects = [row for row in kept if isinstance(row, dict)]
    counted = objects and "I/O Tensors" not in document
    every = [tensor for row in objects for tensor in tensors(row, "Inputs") + tensors(row, "Outputs")]
    moved = [size(one) for row in objects if row["LayerType"] != "NoOp" for one in tensors(row, "Inputs", "Outputs")]
    return {
        "layers": len(kept),
        "tensors": len(every),
        "dtypes": dict(Counter(NAMES.get(word_of(tensor), word_of(tensor)) for tensor in every)),
        "conversions": sum(map(is_conversion, objects)) if counted else None,
        "traffic_bytes": None if not every or None in moved else sum(one or 0 for one in moved),
    }


def is_layer(row: Any) -> bool:
    """Tell whether a row has what every version of TensorRT writes."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("Name", "LayerType")):
        return False
    return all(isinstance(row.get(key), list) and all(map(is_tensor, row[key])) for key in ("Inputs", "Outputs"))


def is_tensor(row: Any) -> bool:
    """Tell whether a row names a tensor and its dimensions."""
    dims = row.get("Dimensions") if isinstance(row, dict) else None
    return isinstance(dims, list) and isinstance(row.get("Name"), str) and all(type(one) is int for one in dims)


def profile_of(row: Any) -> int:
    """Return the optimization profile in a layer's name, 0 where it names none."""
    name = row if isinstance(row, str) else row["Name"]
    found = re.findall(r" \[profile (\d{1,9})\]", name)
    return int(found[0]) if found else 0


def tensors(row: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
    """Return a layer's tensors, cache control left out."""
    return [
        one for key in keys for one in row[key] if not re.match("l2_cache_(policy_inputs|management)_", one["Name"])
    ]


def word_of(tensor: dict[str, Any]) -> str:
    """Return the first word of the tensor's format that names a type, "" where none does."""
    text = tensor["Datatype"] if "Datatype" in tensor else tensor.get("Format/Datatype", "")
    return next((word for word in re.split(r"[^a-z0-9]+", str(text).lower()) if word in WORD_BYTES), "")


def size(tensor: dict[str, Any]) -> int | None:
    """Return a tensor's bytes, None where they are not known."""
    if word_of(tensor) == "" or any(one < 0 for one in tensor["Dimensions"]):
        return None
    half_bytes: int = math.prod(tensor["Dimensions"]) * int(2 * WORD_BYTES[word_of(tensor)])
    return (half_bytes + 1) // 2


def is_conversion(row: dict[str, Any]) -> bool:
    """Tell whether a layer is a Q/DQ that was left over."""
    if row["LayerType"] == "Reformat" and isinstance(row.get("Origin"), str) and row["Origin"]:
        return bool(row["Origin"] == "QDQ")
    if row["LayerType"] not in ("Reformat", "Scale") or row["Name"].startswith("Reformatting CopyNode"):
        return False
    read, written = tensors(row, "Inputs"), tensors(row, "Outputs")
    if len(read) != 1 or len(written) != 1:
        return False
    kinds = [word_of(read[0]), word_of(written[0])]
    return sorted("float" if kind in FLOATS else kind for kind in kinds) == ["float", "int8"]


def profile(document: Any) -> dict[str, Any] | None:
    """Recount a per-layer profile: rows, and the sum of their times."""
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        return None
    rows = [row for row in document if "name" in row]
    counts = [row["count"] for row in document if "count" in row and "name" not in row]
    means, medians = [row.get("averageMs") for row in rows], [row.get("medianMs") for row in rows]
    numbers = means + [median for median in medians if median is not None]
    if not rows or not all(is_number(one) for one in numbers) or not is_count(counts[:1]):
        return None
    times = [mean if median is None else median for mean, median in zip(means, medians, strict=True)]
    return {"rows": len(rows), "sum_ms": math.fsum(one for one in map(float, times) if math.isfinite(one))}


def is_number(value: Any) -> bool:
    """Tell whether a value is a number that a float holds."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def is_count(counts: list[Any]) -> bool:
    """Tell whether the number of runs, where there is one, is a number or the text of one."""
    try:
        return all(int(one) is not None for one in counts)
    except (TypeError, ValueError, OverflowError):
        return False


def log(text: str) -> dict[str, Any] | None:
    """Recount trtexec's log: the throughput and mean latency of its first run, and the rows of its layer table."""
    runs = re.split(r"(?m)^(?=&&&& RUNNING TensorRT\.trtexec(?:\.exe)? \[TensorRT v\d{4,6}\](?: \[b\d+\])? # )", text)
    if len(runs) < 2:
        return None
    return {"throughput_qps": figure(runs[1], "Throughput: ", " qps"), "latency_mean_ms": mean_latency(runs[1])}


def figure(text: str, before: str, after: str) -> float | None:
    """Return the number between two texts on a line of trtexec's summary."""
    summary = summary_of(text)
    found = re.search(r"(?m)^\[[^]\n]+\] \[.\] " + re.escape(before) + r"(\S+)" + re.escape(after), summary)
    return number(found[1]) if found else None


def summary_of(text: str) -> str:
    """Return what stands below trtexec's summary title, wherever that stands, up to the next title."""
    _, *parts = re.split(r"(?m)^.*=== ([^=\n]+) ===\s*?$", text)
    return "".join(part for title, part in zip(parts[::2], parts[1::2], strict=True) if title == "Performance summary")


def mean_latency(text: str) -> float | None:
    """Return the mean latency, where the line is whole."""
    summary = summary_of(text)
    found = re.search(
        r"(?m)^\[[^]\n]+\] \[.\] Latency: min = (\S+) ms, max = (\S+) ms, mean = (\S+) ms, median = (\S+) ms", summary
    )
    values = [number(one) for one in found.groups()] if found else [None]
    return None if None in values else values[2]


def number(text: str) -> float | None:
    """Return a finite number, None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def table(text: str) -> dict[str, Any] | None:
    """Recount the rows of a layer table in a log, without synchronization; None where there is no table."""
    start = re.search(r"(?m)^(?:\[.*\] )?Layers:\n", text)
    body = re.split(r"\n\n(?:Bindings|I/O Tensors):\n", text[start.end() - 1 :])[0] if start else ""
    lines = [line for line in body.split("\n") if line]
    if lines and lines[0].startswith("Name: "):
        kinds = [re.findall(r", LayerType: (\w*)", line)[:1] for line in lines if line.startswith("Name: ")]
        return {"layers": sum(kind[:1] not in ([one] for one in SYNCHRONIZATION) for kind in kinds)}
    return {"layers": len(lines)} if lines else None


def rows(sort: str, text: str) -> dict[str, Any]:
    """Count the layers, or a profile's rows, in text that is no JSON: by the key that each of them has."""
    if sort == "profile":
        return {"rows": len(re.findall(r'"averageMs"\s*:', text))}
    kinds = re.findall(r'"LayerType"\s*:\s*"(\w*)', text)
    return {"layers": sum(kind not in SYNCHRONIZATION for kind in kinds)}
