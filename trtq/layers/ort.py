"""What ONNX Runtime runs: the network that it wrote after its optimizations, and the profile of a session of it.

Node times are joined by name; a profile's name is the node's with `_kernel_time` behind it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from trtq.errors import ModelError
from trtq.layers import kinds
from trtq.layers.graph import DType, Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.layers.source import Source
from trtq.layers.times import with_times

# ONNX Runtime writes the opsets of all domains that it knows into what it saves.
OWN_DOMAINS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc", "com.microsoft.experimental"})
# Kernels that multiply integers, by what their names begin or end with.
INTEGER_KERNELS = ("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger", "ConvInteger", "QAttention")
KERNEL_TIME = "_kernel_time"
FIRST_FIELD = b"\x08"  # of a serialized ModelProto: ir_version
DTYPES: dict[int, DType] = {
    onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64", onnx.TensorProto.UINT64: "uint64", onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.FLOAT8E4M3FN: "fp8", onnx.TensorProto.INT4: "int4", onnx.TensorProto.FLOAT4E2M1: "fp4",
}  # fmt: skip
PROFILE_DTYPES: dict[str, DType] = {
    "float": "float32", "float16": "float16", "bfloat16": "bfloat16", "int8": "int8", "uint8": "uint8",
    "int32": "int32", "int64": "int64", "uint64": "uint64", "bool": "bool",
}  # fmt: skip


def is_network(source: Source) -> bool:
    """Tell whether a file looks like an ONNX network."""
    return source.path.suffix == ".onnx" or (source.content.startswith(FIRST_FIELD) and b"\0" in source.content[:4096])


def is_profile(document: Any) -> bool:
    """Tell whether a JSON value is what ONNX Runtime's profiler writes."""
    return (
        isinstance(document, list)
        and all(isinstance(event, dict) for event in document)
        and any("cat" in event and "dur" in event for event in document)
    )


def read_graph(source: Source, profile: Source | None = None) -> LayerGraph:
    """Return the nodes that ONNX Runtime runs, in the order of the file, with their times where a profile is given.

    Compiled without a profile, measured with one, which also tells the shapes that the network leaves open. A
    network that ONNX Runtime did not write is refused, for then its nodes are not what runs. Raises `ModelError`.
    """
    network = _load(source)
    if not OWN_DOMAINS & {opset.domain for opset in network.opset_import}:
        raise ModelError(
            f"{source.path}: is an ONNX network that ONNX Runtime has not optimized, so its nodes are no layers; "
            "predict them with `trtq predict`, or build it with `--backend ort`"
        )
    known = {value.name: _tensor(value) for value in _values(network.graph)}
    constants = {one.name for one in network.graph.initializer}
    layers = tuple(_layer(node, known, constants) for node in network.graph.node)
    if not layers:
        raise ModelError(f"{source.path}: holds no nodes; export the network again")
    graph = _graph(layers, network)
    return graph if profile is None else _with_profile(graph, network, profile)


def _load(source: Source) -> onnx.ModelProto:
    try:
        network: onnx.ModelProto = onnx.ModelProto.FromString(source.content)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{source.path}: is not an ONNX network, or a damaged one ({error})") from error
    if not network.HasField("graph"):
        raise ModelError(f"{source.path}: is not an ONNX network; it holds no graph")
    return network


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.value_info, *graph.input, *graph.output)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    # Without a shape its rank is not known either.
    return Tensor(value.name, dims if kind.HasField("shape") else (-1,), DTYPES.get(kind.elem_type, "unknown"))


def _layer(node: onnx.NodeProto, known: dict[str, Tensor], constants: set[str]) -> Layer:
    read = [name for name in node.input if name and name not in constants]
    name = node.name or next((output for output in node.output if output), "")
    return Layer(
        name=name,
        kind=node.op_type,
        inputs=tuple(known.get(one, Tensor(one, (-1,), "unknown")) for one in read),
        outputs=tuple(known.get(one, Tensor(one, (-1,), "unknown")) for one in node.output if one),
        onnx_nodes=(node.name,) if node.name else (),
        precision="int8" if any(word in node.op_type for word in INTEGER_KERNELS) else "unknown",
    )


def _graph(layers: tuple[Layer, ...], network: onnx.ModelProto) -> LayerGraph:
    found = replace(
        signals(layers, "measured"),
        conversions=sum(map(kinds.is_conversion, layers)),
    )
    producer = f" (network by {network.producer_name})" if network.producer_name else ""
    return LayerGraph("compiled", f"ONNX Runtime{producer}", layers, found)


def _with_profile(graph: LayerGraph, network: onnx.ModelProto, profile: Source) -> LayerGraph:
    events = _events(profile)
    shaped = _graph(_shaped(graph.layers, events), network)
    rows = [(name, median(times)) for name, times in _times_us(events, profile).items()]
    # A node without a name is called after its operator and its number in the session, which the file does not tell.
    timed = with_times(shaped, rows, str(profile.path))
    return replace(timed, origin="measured")


def _events(profile: Source) -> list[dict[str, Any]]:
    if not is_profile(profile.document):
        raise ModelError(f"{profile.path}: is not a profile of ONNX Runtime; use the JSON that its profiler writes")
    return [
        event
        for event in profile.document
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(KERNEL_TIME)
    ]


def _times_us(events: Sequence[dict[str, Any]], profile: Source) -> dict[str, list[float]]:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        duration = event.get("dur")
        if isinstance(duration, bool) or not isinstance(duration, (int, float)):
            raise ModelError(f"{profile.path}: an event's duration is {duration!r}, no number; profile again")
        times[str(event["name"]).removesuffix(KERNEL_TIME)].append(float(duration))
    return times


def _shaped(layers: Sequence[Layer], events: Sequence[dict[str, Any]]) -> tuple[Layer, ...]:
    """Return the layers with the shapes and dtypes that the profile saw, where the network leaves them open.

    Only of nodes that occur under one name and write as many tensors as the profile says: its lists have no names.
    """
    named = Counter(layer.name for layer in layers)
    seen = {str(event["name"]).removesuffix(KERNEL_TIME): event.get("args") for event in events}
    found: dict[str, Tensor] = {}
    for layer in layers:
        arguments = seen.get(layer.name)
        written = arguments.get("output_type_shape") if isinstance(arguments, dict) else None
        if named[layer.name] == 1 and isinstance(written, list) and len(written) == len(layer.outputs):
            found.update(
                (tensor.name, _completed(tensor, one)) for tensor, one in zip(layer.outputs, written, strict=True)
            )
    return tuple(
        replace(
            layer,
            inputs=tuple(found.get(tensor.name, tensor) for tensor in layer.inputs),
            outputs=tuple(found.get(tensor.name, tensor) for tensor in layer.outputs),
        )
        for layer in layers
    )


def _completed(tensor: Tensor, seen: Any) -> Tensor:
    if not isinstance(seen, dict) or len(seen) != 1:
        return tensor
    ((word, dims),) = seen.items()
    whole = isinstance(dims, list) and all(type(dim) is int for dim in dims)
    return replace(
        tensor,
        dims=tuple(dims) if whole and any(dim < 0 for dim in tensor.dims) else tensor.dims,
        dtype=PROFILE_DTYPES.get(word, "unknown") if tensor.dtype == "unknown" else tensor.dtype,
    )
