"""LayerGraph: the layers of an engine in execution order, and where the knowledge comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from trtq import files
from trtq.errors import ModelError

Origin = Literal["measured", "compiled", "predicted"]
DType = Literal[
    "int8", "uint8", "int4", "fp4", "fp8", "float16", "bfloat16", "float32", "int32", "int64", "uint64", "bool",
    "float", "unknown",
]  # fmt: skip
FLOATS: tuple[DType, ...] = ("float16", "bfloat16", "float32", "float")
ITEM_BYTES: dict[DType, int] = {
    "int8": 1, "uint8": 1, "fp8": 1, "bool": 1, "float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "int64": 8,
    "uint64": 8,
}  # fmt: skip
TWO_A_BYTE: tuple[DType, ...] = ("int4", "fp4")


@dataclass(frozen=True)
class Tensor:
    """A tensor between two layers; a dimension of -1 is dynamic; `dtype` "float" is one whose width is not known."""

    name: str
    dims: tuple[int, ...]
    dtype: DType
    format: str = ""

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the dense tensor, or None when a dimension or the dtype's width is not known."""
        if any(dim < 0 for dim in self.dims):
            return None
        if self.dtype in TWO_A_BYTE:
            return (math.prod(self.dims) + 1) // 2
        item = ITEM_BYTES.get(self.dtype)
        return None if item is None else item * math.prod(self.dims)


@dataclass(frozen=True)
class Layer:
    """One kernel or fused group of an engine, and the ONNX nodes that it computes (n:m; empty when not known).

    `precision` is the dtype of the weights as the kernel multiplies them, `weight_count` how many it holds: both where
    the engine's description tells.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    onnx_nodes: tuple[str, ...] = ()
    tactic: str = ""
    time_us: float | None = None
    precision: DType = "unknown"
    weight_count: int | None = None


@dataclass(frozen=True)
class Signals:
    """The figures of DESIGN that tables, gates and `--json` rely on; None where an origin cannot tell."""

    layers: int
    conversions: int | None
    double_writes: int | None
    requantizes: int | None
    float_writes: int | None
    traffic_bytes: int | None
    int8_share: float | None
    time_us: float | None


@dataclass(frozen=True)
class LayerGraph:
    """An engine's layers in execution order; `source` names the builder and version, `targets` the SMs."""

    origin: Origin
    source: str
    layers: tuple[Layer, ...]
    signals: Signals
    targets: tuple[str, ...] = ()
    onnx_sha256: str | None = None
    notes: tuple[str, ...] = field(default=())

    def save(self, path: Path) -> None:
        """Write the graph as `layers.json`; raises `OutputError`."""
        files.write_json(path, {"trtq_layers": 1, **asdict(self)})


def load_layers(path: Path) -> LayerGraph:
    """Read a graph that `LayerGraph.save` wrote; raises `ModelError` for any other file."""
    document = files.read_json(path)
    if not isinstance(document, dict) or document.get("trtq_layers") != 1:
        raise ModelError(f"{path}: is not a layers.json of trtq; convert an engine's layer file with `trtq layers`")
    try:
        return _graph(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path}: is not a complete layers.json ({error!r}); write it again with `trtq layers`"
        ) from error


def _graph(document: dict[str, Any]) -> LayerGraph:
    if document["origin"] not in get_args(Origin):
        raise ValueError(f"unknown origin {document['origin']!r}")
    return LayerGraph(
        origin=document["origin"],
        source=str(document["source"]),
        layers=tuple(map(_layer, document["layers"])),
        signals=Signals(**document["signals"]),
        targets=tuple(map(str, document["targets"])),
        onnx_sha256=document["onnx_sha256"],
        notes=tuple(map(str, document["notes"])),
    )


def _layer(row: dict[str, Any]) -> Layer:
    return Layer(
        name=str(row["name"]),
        kind=str(row["kind"]),
        inputs=tuple(map(_tensor, row["inputs"])),
        outputs=tuple(map(_tensor, row["outputs"])),
        onnx_nodes=tuple(map(str, row["onnx_nodes"])),
        tactic=str(row["tactic"]),
        time_us=None if row["time_us"] is None else float(row["time_us"]),
        precision=_dtype(row.get("precision")),
        weight_count=None if row.get("weight_count") is None else int(row["weight_count"]),
    )


def _tensor(row: dict[str, Any]) -> Tensor:
    return Tensor(str(row["name"]), tuple(int(dim) for dim in row["dims"]), _dtype(row["dtype"]), str(row["format"]))


def _dtype(word: Any) -> DType:
    return word if word in get_args(DType) else "unknown"
