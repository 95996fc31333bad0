"""Insert: fold BatchNorm and place fake quantizers where TensorRT's documented rules want Q/DQ."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from absl import logging as absl_logging
from pytorch_quantization import nn as quant_nn
from pytorch_quantization.tensor_quant import QuantDescriptor
from torch import fx, nn
from torch.fx.experimental import optimization
from torch.fx.passes.shape_prop import ShapeProp

from trtq.config import QuantSpec, did_you_mean
from trtq.errors import ConfigError, ModelError

# pytorch-quantization warns once per quantizer and call; nothing in it is for the user.
absl_logging.set_verbosity(absl_logging.ERROR)

INT8_BOUND = 127
ADDS: tuple[Any, ...] = (torch.add, "add", "add_")
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.Mish, nn.GELU, nn.Dropout, nn.Identity)


@dataclass
class Quantized:
    """A network with quantizers: the module, its activation quantizers by name, and what was left float and why.

    Names are module paths: `features.0.0.input_quantizer`, or `residual_quantizers.add_3` for the input of an Add.
    ties: quantizer names that share one quantizer. notes: sentences for the user.
    """

    module: fx.GraphModule
    quantizers: dict[str, Any] = field(default_factory=dict)
    ties: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def fold(model: nn.Module) -> fx.GraphModule:
    """Return a traced copy of `model` with every BatchNorm behind a convolution or linear layer folded into it.

    Raises `ModelError` where torch.fx cannot trace `model` (control flow that depends on values).
    """
    try:
        traced = fx.symbolic_trace(model.eval())
    except Exception as error:  # tracing runs the user's forward, which may raise anything
        raise ModelError(
            f"{type(model).__name__}: forward cannot be traced by torch.fx ({_first_line(error)}); "
            "move what depends on values (decoding, NMS) out of the network"
        ) from error
    with torch.no_grad():
        return cast(fx.GraphModule, optimization.fuse(traced, no_trace=True))


def insert(model: nn.Module, spec: QuantSpec, example: torch.Tensor) -> Quantized:
    """Return a folded copy of `model` with quantizers: Conv2d and Linear inputs and weights, and residual inputs.

    Activations are per-tensor, weights per output channel with the channel's largest value as range; ConvTranspose
    stays float, since sources disagree about its axis. `example` is float32 (n, c, h, w), used for shapes only.
    Raises `ModelError` for an untraceable network or NaN weights, `ConfigError` for an exclude glob without a match.
    """
    graph = fold(model)
    _run_shapes(graph, example)
    excluded = _excluded(graph, spec)
    result = Quantized(graph, notes=tuple(_unreached(model, graph)))
    if spec.residual:
        _quantize_residuals(result, spec, excluded)
    for path, layer in list(graph.named_modules()):
        make = LAYERS.get(type(layer))
        if make is not None and path not in excluded:
            quantized = make(layer, spec)
            _take_weights(path, layer, quantized)
            graph.set_submodule(path, quantized)
            result.quantizers[f"{path}.input_quantizer"] = quantized.input_quantizer
    if not result.quantizers:
        raise ModelError(
            f"{type(model).__name__}: has no Conv2d or Linear layer to quantize; check quantization.exclude"
        )
    return result


def _conv(layer: Any, spec: QuantSpec) -> Any:
    return quant_nn.QuantConv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        **_descriptors(spec),
    )


def _linear(layer: Any, spec: QuantSpec) -> Any:
    return quant_nn.QuantLinear(layer.in_features, layer.out_features, layer.bias is not None, **_descriptors(spec))


LAYERS: dict[type[nn.Module], Callable[[Any, QuantSpec], Any]] = {nn.Conv2d: _conv, nn.Linear: _linear}


def _descriptors(spec: QuantSpec) -> dict[str, QuantDescriptor]:
    return {
        "quant_desc_input": _activation_descriptor(spec),
        "quant_desc_weight": QuantDescriptor(num_bits=8, axis=(0,)),
    }


def _activation_descriptor(spec: QuantSpec) -> QuantDescriptor:
    return QuantDescriptor(num_bits=8, calib_method="max" if spec.calibrator == "max" else "histogram")


def _take_weights(path: str, layer: Any, quantized: Any) -> None:
    quantized.weight, quantized.bias = layer.weight, layer.bias
    weight = layer.weight.detach()
    if not torch.isfinite(weight).all():
        raise ModelError(f"{path}: its weights hold NaN or infinite values; check the checkpoint")
    amax = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True)
    # A channel of zeros has no range; any scale is exact for it, and TensorRT refuses zero.
    quantized.weight_quantizer.register_buffer("_amax", torch.where(amax > 0, amax, torch.ones_like(amax)))


def _excluded(graph: fx.GraphModule, spec: QuantSpec) -> set[str]:
    paths = [path for path, layer in graph.named_modules() if type(layer) in LAYERS]
    excluded: set[str] = set()
    for glob in spec.exclude:
        found = fnmatch.filter(paths, glob)
        if not found:
            raise ConfigError(f"quantization.exclude: '{glob}' matches no layer{did_you_mean(glob, paths)}")
        excluded.update(found)
    return excluded


def _unreached(model: nn.Module, graph: fx.GraphModule) -> Iterator[str]:
    called = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    for path, layer in model.named_modules():
        if type(layer) in LAYERS and path not in called:
            yield f"{path} is never reached by forward: skipped"


def _run_shapes(graph: fx.GraphModule, example: torch.Tensor) -> None:
    try:
        with torch.no_grad():
            ShapeProp(graph).propagate(example)  # type: ignore[no-untyped-call]
    except Exception as error:  # the user's network runs here
        shape = tuple(example.shape)
        raise ModelError(f"the network does not take an input of shape {shape} ({_first_line(error)})") from error


def _quantize_residuals(result: Quantized, spec: QuantSpec, excluded: set[str]) -> None:
    """Put a quantizer on the input of each Add that is not the convolution that TensorRT fuses the Add into.

    Source: TensorRT's placement recommendations (quantize the residual input of Conv+Add) and NVIDIA's
    tensorflow-quantization: all Add inputs except the one that comes from Conv(-activation) with a single consumer.
    """
    graph, holder, depth = result.module, nn.Module(), _depths(result.module)
    graph.add_submodule("residual_quantizers", holder)
    for node in list(graph.graph.nodes):
        residual = _residual_input(graph, node, depth, excluded)
        if residual is None:
            continue
        quantizer = quant_nn.TensorQuantizer(_activation_descriptor(spec))
        holder.add_module(node.name, quantizer)
        with graph.graph.inserting_before(node):
            quantized = graph.graph.call_module(f"residual_quantizers.{node.name}", (residual,))
        node.replace_input_with(residual, quantized)
        result.quantizers[f"residual_quantizers.{node.name}"] = quantizer
    graph.recompile()


def _residual_input(
    graph: fx.GraphModule, node: fx.Node, depth: dict[fx.Node, int], excluded: set[str]
) -> fx.Node | None:
    is_add = node.op in ("call_function", "call_method") and (
        node.target in ADDS or getattr(node.target, "__name__", "") in ("add", "iadd")
    )
    if not is_add or len(node.args) != 2:
        return None
    one, other = node.args
    if not (isinstance(one, fx.Node) and isinstance(other, fx.Node)) or one is other:
        return None
    if "tensor_meta" not in one.meta or "tensor_meta" not in other.meta:
        return None
    fusible = [side for side in (one, other) if _from_conv(graph, side, excluded)]
    if not fusible:
        return None
    # Of two convolutions the Add goes into the one at the end of the longer path, as modelopt's partitioning has it.
    main = max(fusible, key=lambda side: depth[side])
    return other if main is one else one


def _from_conv(graph: fx.GraphModule, node: fx.Node, excluded: set[str]) -> bool:
    while len(node.users) == 1 and node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        if type(layer) is nn.Conv2d:
            return node.target not in excluded
        if not isinstance(layer, ACTIVATIONS) or not isinstance(node.args[0], fx.Node):
            return False
        node = node.args[0]
    return False


def _depths(graph: fx.GraphModule) -> dict[fx.Node, int]:
    depth: dict[fx.Node, int] = {}
    for node in graph.graph.nodes:
        depth[node] = 1 + max((depth[one] for one in node.all_input_nodes), default=0)
    return depth


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
