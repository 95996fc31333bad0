"""How a prediction compares with a published engine: conversions, types of tensors, operators that share a layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.engine_names import Network, RealEngine, RealLayer
from trtq.predict import Prediction

CONVERSIONS = ("quantize", "dequantize", "requantize")
WEIGHTED = ("Conv", "Gemm")


def scores(engine: RealEngine, prediction: Prediction, network: Network) -> dict[str, Any]:
    """Return every score of one prediction, misses listed by name."""
    return {
        "conversions": {
            "predicted": prediction.graph.signals.conversions,
            "real": len(engine.converted),
            "of_the_same_tensors": converted_tensors(prediction, network) == engine.converted,
        },
        "tensors": tensor_score(engine, prediction, network),
        "weighted_layers": weighted_score(engine, prediction, network),
        "fused_layers": fused_layers(engine, prediction, network),
    }


def converted_tensors(prediction: Prediction, network: Network) -> tuple[str, ...]:
    """Return the ONNX tensors that a predicted conversion reads, in front of Q and DQ, sorted."""
    read = [layer.inputs[0].name for layer in prediction.graph.layers if layer.kind in CONVERSIONS]
    return tuple(sorted(network.float_tensor(name.rstrip("_").removesuffix("_quantized")) for name in read))


def tensor_score(engine: RealEngine, prediction: Prediction, network: Network) -> dict[str, Any]:
    """Compare the type of every tensor that crosses a boundary between layers, in the engine or in the prediction."""
    real = {layer.tensor: layer.writes for layer in engine.layers}
    readers = {name: layer for layer in engine.layers for name in layer.operators}
    for tensor in prediction.tensors:
        if tensor not in real and (found := _read_as(tensor, readers, network)):
            real[tensor] = found
    names = [*real, *(name for name in prediction.tensors if name not in real)]
    pairs = {name: (prediction.tensors.get(name, "inside a layer"), real.get(name, "not told")) for name in names}
    misses = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return {
        "compared": len(pairs),
        "match": len(pairs) - len(misses),
        "confusion": dict(Counter(f"predicted {one}, real {other}" for one, other in pairs.values())),
        "misses": [{"tensor": name, "predicted": one, "real": other} for name, (one, other) in misses.items()],
    }


def _read_as(tensor: str, readers: Mapping[str, RealLayer], network: Network) -> str | None:
    """Return how the engine reads a tensor that no kernel of it writes: a change of shape launches none."""
    if network.maker[tensor].op_type not in ("Flatten", "Reshape"):
        return None
    waiting = list(network.readers.get(tensor, []))
    while waiting:
        node = waiting.pop()
        if node.name in readers and len(readers[node.name].reads) == 1:
            return readers[node.name].reads[0]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            waiting += network.readers.get(node.output[0], [])
    return None


def weighted_score(engine: RealEngine, prediction: Prediction, network: Network) -> dict[str, Any]:
    """Compare what each convolution and matrix product reads and writes."""
    real = {_weighted(layer.operators, network): (layer.reads, layer.writes) for layer in engine.layers}
    predicted = {
        _weighted(frozenset(layer.onnx_nodes), network): (
            tuple(tensor.dtype for tensor in layer.inputs),
            layer.outputs[0].dtype,
        )
        for layer in prediction.graph.layers
    }
    weighted = [name for kind in WEIGHTED for name in network.of_kind(kind)]
    misses = [name for name in weighted if predicted.get(name) != real.get(name)]
    return {
        "layers": len(weighted),
        "same_types": len(weighted) - len(misses),
        "misses": [{"layer": name, "predicted": predicted.get(name), "real": real.get(name)} for name in misses],
    }


def _weighted(operators: frozenset[str], network: Network) -> str | None:
    return next((one for one in sorted(operators) if network.nodes[one].op_type in WEIGHTED), None)


def fused_layers(engine: RealEngine, prediction: Prediction, network: Network) -> dict[str, Any]:
    """Compare which operators share a layer, of the kinds that the engine's file names completely."""
    real = {layer.operators & _of_kinds(engine, layer.operators, network) for layer in engine.layers}
    predicted = {
        _of_kinds(engine, frozenset(layer.onnx_nodes), network)
        for layer in prediction.graph.layers
        if layer.kind not in CONVERSIONS
    }
    wanted = {one for one in real if one}
    return {
        "kinds": list(engine.kinds),
        "real": len(wanted),
        "same": len(wanted & predicted),
        "misses": sorted(sorted(one) for one in wanted - predicted),
    }


def _of_kinds(engine: RealEngine, operators: frozenset[str], network: Network) -> frozenset[str]:
    return frozenset(one for one in operators if network.nodes[one].op_type in engine.kinds)
