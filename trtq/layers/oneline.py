"""The layer table in a log of trtexec (`--dumpLayerInfo`), as TensorRT's inspector writes it in one line a layer.

A row of 8.2 to 10.x is `Name, LayerType, Inputs[], Outputs[]`, then what that layer type has, at last `Metadata`; of 11
it is TensorRT-RTX's. Without detailed profiling verbosity a row is the layer's name.
"""

from __future__ import annotations

import re
from typing import Any

from trtq.errors import ModelError
from trtq.layers import inspector, rtx, trtexec_log
from trtq.layers.graph import LayerGraph

_TABLE = re.compile(r"^(?:\[[^\n]*\] )?Layers:\n", re.MULTILINE)
_END = re.compile(r"\n\n(?P<title>Bindings|I/O Tensors):\n")
_NAME, _TENSOR = "Name: ", "{ Name: "
_ROW_KEYS = (_NAME, ", LayerType: ", ", Inputs: [", "], Outputs: [")
_TENSOR_KEYS = (_TENSOR, ", Dimensions: [", "], Format/Datatype: ")
_LOCATION = re.compile(r", Location: \w+$")
_LAST_TENSOR = " }]"
_FIELD = re.compile(r", (?P<key>Origin|TacticName|StreamId): (?P<value>[^,\n]*)")
_WEIGHTS = re.compile(r', (?:Conv)?Weights: \{"Type": "(?P<type>\w+)"(?:, "Count": (?P<count>\d{1,18}))?')
_METADATA = ", Metadata: "


def holds_table(text: str) -> bool:
    """Tell whether a text is trtexec's log and holds a layer table."""
    return trtexec_log.is_log(text) and _TABLE.search(text) is not None


def read_graph(text: str, where: str, optimization_profile: int | None = None) -> LayerGraph:
    """Return the measured layer graph of a log's table; raises `ModelError` where it is cut or malformed."""
    start = _TABLE.search(text)
    end = _END.search(text, start.end() - 1) if start else None
    if start is None or end is None:
        raise ModelError(f"{where}: the layer table is cut short; keep all that trtexec prints")
    body = text[start.end() : end.start()]
    version = ".".join(map(str, trtexec_log.parse_log(text, where).version))
    if end["title"] == "I/O Tensors":
        layers = rtx.read_table(text, where)
        return inspector.graph_of(layers, f"TensorRT {version}", conversions_known=False)
    rows = [_row(row, where) for row in _rows(body)]
    return inspector.read_rows(rows, where, f"TensorRT {version}", optimization_profile=optimization_profile)


def _rows(body: str) -> list[str]:
    """Return the rows; a detailed one goes on until the next that starts with its key, for names may hold newlines."""
    lines = body.split("\n")
    if not body.startswith(_NAME):
        return [line for line in lines if line]
    rows: list[str] = []
    for line in lines:
        if line.startswith(_NAME):
            rows.append(line)
        else:
            rows[-1] += "\n" + line
    return rows


def _row(row: str, where: str) -> Any:
    """Return the row as the inspector's JSON has it: an object, or the name alone."""
    if not row.startswith(_NAME) or _ROW_KEYS[1] not in row:
        return row
    name, kind, inputs, rest = rtx.cut(row, _ROW_KEYS, where)
    written, rest = _split_outputs(rest, where)
    head, _, metadata = rest.partition(_METADATA)
    fields = {found["key"]: found["value"] for found in _FIELD.finditer(head)}
    weights = _WEIGHTS.search(head)
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": _tensors(inputs, where),
        "Outputs": _tensors(written, where),
        "Metadata": metadata.rstrip(),
        **fields,
        **({"Weights": {"Type": weights["type"], "Count": int(weights["count"] or 0)}} if weights else {}),
    }


def _split_outputs(rest: str, where: str) -> tuple[str, str]:
    if rest.startswith("]"):
        return "", rest[1:]
    end = rest.find(_LAST_TENSOR)
    if end < 0:
        raise ModelError(f"{where}: a row of the layer table is cut ({rest[:60]!r}); keep all that trtexec prints")
    return rest[: end + len(_LAST_TENSOR) - 1], rest[end + len(_LAST_TENSOR) :]


def _tensors(text: str, where: str) -> list[dict[str, Any]]:
    return [_tensor(entry, where) for entry in rtx.entries(text, _TENSOR, where)]


def _tensor(entry: str, where: str) -> dict[str, Any]:
    name, dims, layout = rtx.cut(entry, _TENSOR_KEYS, where)
    return {
        "Name": _LOCATION.sub("", name),
        "Dimensions": list(rtx.numbers(dims, name, where)),
        "Format/Datatype": layout.removesuffix(" }").strip(),
    }
