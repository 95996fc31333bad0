"""A Q/DQ network into a float one, a calibration cache and layer precisions: trained scales for implicit mode.

Up to TensorRT 10, and on DLA, that gives QAT's scales the freedom to fuse that PTQ has. The idea is NVIDIA's
cuDLA-samples' (qdq_translator).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trtq import files, qdq
from trtq.backends import onnx_file
from trtq.errors import ConfigError, ModelError
from trtq.ptq.cache import ALGORITHM, INT8_MAX, CalibrationCache, write_cache
from trtq.ptq.spread import spread
from trtq.qdq import reading
from trtq.qdq.strip import WeightScales, strip

FLOAT_PRECISION = "fp16"
# A weight scale differs from maximum / 127 where calibration clipped, or left room; rounding stays far below this.
SAME_SCALE = 1e-3


@dataclass(frozen=True)
class Extracted:
    """What a Q/DQ network became.

    cache: the file's own scales, and those that follow from them. trained: how many are the file's own. repeated:
    tensors that several quantizers read with different scales; the cache has the largest. float_layers: nodes with
    weights that the file runs in float. weights: how many are quantized. rescaled_weights: those whose scale is not
    their maximum / 127, which implicit mode will take instead.
    """

    cache: CalibrationCache
    trained: int
    repeated: tuple[str, ...]
    float_layers: tuple[str, ...]
    weights: int
    rescaled_weights: tuple[str, ...]

    @property
    def precisions(self) -> str:
        """The text for trtexec's --layerPrecisions: what the file runs in float stays out of int8."""
        return ",".join(f"{name}:{FLOAT_PRECISION}" for name in self.float_layers)


def qdq_to_cache(source: Path, network: Path, cache: Path, version: str, precisions: Path | None = None) -> Extracted:
    """Write the float network in `source` to `network`, its scales to `cache` and, if asked, layer precisions.

    version: the cache header's number (`header_version`). Raises `ModelError` for quantizers that a cache cannot say
    (`extract`), `ConfigError` where an output would replace the source, `OutputError`.
    """
    onnx_file.check(source)
    outputs = [path for path in (network, cache, precisions) if path is not None]
    if len({path.resolve() for path in (source, *outputs)}) != len(outputs) + 1:
        raise ConfigError(f"{source}: its float network, cache and precisions need files of their own")
    model = qdq.load(source)
    extracted = extract(model, version)
    if precisions is not None:
        _check_separators(extracted.float_layers)
    qdq.save(model, network)
    write_cache(cache, extracted.cache)
    if precisions is not None:
        files.write_text(precisions, extracted.precisions + "\n")
    return extracted


def extract(model: ir.Model, version: str) -> Extracted:
    """Take every Q/DQ pair out of a network, in place, and return its scales as a cache.

    Weights keep the values that their integers stand for, so that implicit mode finds the same integers again.
    Raises `ModelError` where there is no quantizer, or one that is not symmetric int8 per tensor with a float32 scale,
    or is read by something else than DequantizeLinear.
    """
    qdq.clean(model)
    quantizers = [node for node in model.graph if reading.is_quantize(node) and reading.is_activation(node)]
    if not quantizers:
        raise ModelError("the network holds no QuantizeLinear on an activation; a cache comes from a Q/DQ network")
    repeated = _check_quantizers(quantizers)
    float_layers = tuple(_float_layers(model))
    stripped = strip(model)
    _check_float(model)
    own = {name: scale * INT8_MAX for name, scale in stripped.activations.items()}
    amax = spread(model, own, through_fused=True)
    return Extracted(
        cache=CalibrationCache(version, ALGORITHM, {name: largest / INT8_MAX for name, largest in amax.items()}),
        trained=len(own),
        repeated=repeated,
        float_layers=float_layers,
        weights=len(stripped.weights),
        rescaled_weights=tuple(_rescaled(model, stripped.weights)),
    )


def _check_quantizers(quantizers: list[ir.Node]) -> tuple[str, ...]:
    """Return the tensors that are quantized with several scales; raise `ModelError` for what a cache cannot say."""
    scales: dict[str, set[float]] = {}
    for node in quantizers:
        label, scale = reading.label(node), reading.scalar_scale(node)
        if scale is None or not reading.is_symmetric_int8(node):
            raise ModelError(f"{label}: is not symmetric int8 with one constant scale, all that a cache can say")
        if not reading.is_positive(scale):
            raise ModelError(f"{label}: its scale is {scale}; mend it with trtq lint --fix")
        readers = list(_readers(node.outputs[0]))
        if node.outputs[0].is_graph_output() or not all(map(reading.is_dequantize, readers)):
            raise ModelError(f"{label}: its integers are read by something else than DequantizeLinear; see trtq lint")
        if any(reading.scalar_scale(reader) != scale for reader in readers):
            raise ModelError(f"{label}: its DequantizeLinear has another scale; mend it with trtq lint --fix")
        scales.setdefault(reading.name(node.inputs[0]), set()).add(scale)
    return tuple(name for name, found in scales.items() if len(found) > 1)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    for node in value.consumers():
        if node.op_type == "Identity":
            yield from _readers(node.outputs[0])
        else:
            yield node


def _float_layers(model: ir.Model) -> Iterator[str]:
    """Yield the names of weighted nodes that do not read both inputs from DequantizeLinear."""
    for node in model.graph:
        if node.op_type in reading.WEIGHTED and len(node.inputs) > 1:
            sources = [reading.source(value) for value in node.inputs[:2]]
            if not all(value is not None and reading.is_dequantize(value.producer()) for value in sources):
                yield node.name or ""


def _rescaled(model: ir.Model, weights: Mapping[str, WeightScales]) -> Iterator[str]:
    """Yield the weights of which some channel's largest is not 127 steps."""
    for name, scales in weights.items():
        values = reading.constant(model.graph.initializers[name])
        assert values is not None
        axes = tuple(index for index in range(values.ndim) if index != scales.axis)
        steps = np.abs(values.astype(np.float64)).max(axis=axes) / scales.values.astype(np.float64) / INT8_MAX
        if np.any((np.abs(steps - 1) > SAME_SCALE) & (steps > 0)):
            yield name


def _check_float(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if reading.is_quantize(node) or reading.is_dequantize(node):
            raise ModelError(
                f"{reading.label(node)}: stands in a subgraph, where trtq does not edit; export without it"
            )


def _check_separators(names: tuple[str, ...]) -> None:
    for name in names:
        if "," in name or not name:
            raise ModelError(f"node '{name}' cannot stand in trtexec's list of layer precisions: rename it first")
