"""Export: a float or fake-quantized network to Q/DQ ONNX, cleaned and named after its modules."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir
import torch
from pytorch_quantization.nn import TensorQuantizer
from torch import nn

from trtq import qdq
from trtq.errors import ModelError
from trtq.qdq import reading

INPUT = "images"
# Operators that TensorRT fuses behind a convolution: they are named after its module.
EPILOGUE = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Mul", "HardSwish", "HardSigmoid", "Elu", "Tanh", "Softplus")


def export(
    module: nn.Module,
    example: torch.Tensor,
    target: Path,
    *,
    opset: int,
    weights: Literal["int8", "float"] = "int8",
    metadata: Mapping[str, Any] | None = None,
    dynamic_batch: bool = False,
) -> None:
    """Write `module` to `target` as ONNX, input `images` and outputs `output_0`, `output_1`, ...

    Shapes are those of `example` (batch, 3, height, width); with `dynamic_batch` the first dimension of every input and
    output is `batch`, any number.

    weights: "int8" stores quantized weights as int8 initializer + DQ (TensorRT 10, 11, RTX, ONNX Runtime), "float" as
    float initializer + Q + DQ (TensorRT 8). `metadata` goes into the file's metadata properties, as JSON.
    Raises `ModelError` when the exporter cannot write the network, `OutputError` when `target` cannot be written.
    """
    model = to_onnx(module, example, opset, dynamic_batch=dynamic_batch)
    if weights == "int8":
        qdq.store_int8_weights(model)
    for key, value in (metadata or {}).items():
        model.metadata_props[f"trtq.{key}"] = json.dumps(value, sort_keys=True)
    qdq.save(model, target)


def to_onnx(module: nn.Module, example: torch.Tensor, opset: int, *, dynamic_batch: bool = False) -> ir.Model:
    """Return the cleaned ONNX graph of `module`; raises `ModelError` when the exporter cannot write it."""
    module.eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), native_fake_quant(), _quiet():
        file = Path(folder) / "exported.onnx"
        outputs = module(example)
        names = [f"output_{i}" for i in range(len(outputs) if isinstance(outputs, (tuple, list)) else 1)]
        try:
            # The dynamo exporter fails on the calibrated range of a quantizer (`amax.item()` is data-dependent).
            torch.onnx.export(
                module, (example,), file, opset_version=opset, dynamo=False, input_names=[INPUT], output_names=names,
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)} if dynamic_batch else None,
            )  # fmt: skip
        except Exception as error:  # the exporter raises many types; the first line tells
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise ModelError(f"the network cannot be exported to ONNX opset {opset}: {reason}") from error
        model = ir.from_proto(onnx.load(file))
    model.producer_name, model.producer_version, model.graph.name = "trtq", None, "network"
    qdq.clean(model)
    _name_after_modules(model)
    return model


@contextmanager
def native_fake_quant() -> Iterator[None]:
    """Let quantizers use PyTorch's own fake-quantize operators: they export, and round to ONNX's -128..127."""
    before = TensorQuantizer.use_fb_fake_quant
    TensorQuantizer.use_fb_fake_quant = True
    try:
        yield
    finally:
        TensorQuantizer.use_fb_fake_quant = before


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns about its own age at each call and prints graphs when it fails.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _name_after_modules(model: ir.Model) -> None:
    """Name nodes and tensors by module path, which a traced graph's scopes have lost but its weights still carry."""
    taken: set[str] = set()
    scopes: dict[int, str] = {}
    order: dict[int, int] = {}
    for number, node in enumerate(model.graph):
        scope = _scope(node, scopes, order)
        if scope is None:
            continue
        scopes[id(node.outputs[0])], order[id(node.outputs[0])] = scope, number
        _rename(node, f"{scope}/{node.op_type}", taken)
        if node.op_type in reading.WEIGHTED:
            _rename_quantizers(node.inputs[:2], ("input_quantizer", "weight_quantizer"), scope, taken)
        elif node.op_type == "Add":
            _rename_quantizers(node.inputs, ("residual_quantizer", "residual_quantizer"), scope, taken)


def _scope(node: ir.Node, scopes: Mapping[int, str], order: Mapping[int, int]) -> str | None:
    """Return the module that a node belongs to; `scopes` and `order` are those of the tensors so far."""
    if node.op_type in reading.WEIGHTED and len(node.inputs) > 1:
        weight = _weight(node.inputs[1])
        return weight.removesuffix(".weight") if weight.endswith(".weight") else None
    if node.op_type in EPILOGUE:
        return scopes.get(id(node.inputs[0]))
    if node.op_type == "Concat":
        return _common_scope([scopes.get(id(value), "") for value in node.inputs])
    if node.op_type == "Add":
        # The convolution that ran last is the one that TensorRT fuses the Add into.
        known = [id(value) for value in node.inputs if id(value) in scopes]
        return scopes[max(known, key=order.__getitem__)] if known else None
    return None


def _common_scope(scopes: Sequence[str]) -> str | None:
    """Return the module that holds all of `scopes`, or None where that is the whole network."""
    shared: list[str] = []
    for parts in zip(*(scope.split(".") for scope in scopes), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or None


def _weight(value: ir.Value | None) -> str:
    """Return the name of the initializer behind `value`, through the weight's Q and DQ."""
    for _ in range(2):
        producer = value.producer() if value is not None else None
        if producer is None or not (reading.is_quantize(producer) or reading.is_dequantize(producer)):
            break
        value = producer.inputs[0]
    return reading.name(value)


def _rename_quantizers(inputs: Sequence[ir.Value | None], kinds: Sequence[str], scope: str, taken: set[str]) -> None:
    for value, kind in zip(inputs, kinds, strict=True):
        dequantize = value.producer() if value is not None else None
        # One DQ may feed several layers: it keeps the name of the first.
        if dequantize is None or not reading.is_dequantize(dequantize) or str(dequantize.name) in taken:
            continue
        quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
        if quantize is not None and reading.is_quantize(quantize):
            _rename(quantize, f"{scope}.{kind}/QuantizeLinear", taken)
        _rename(dequantize, f"{scope}.{kind}/DequantizeLinear", taken)


def _rename(node: ir.Node, wanted: str, taken: set[str]) -> None:
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    node.name = name
    for number, value in enumerate(node.outputs):
        if not value.is_graph_output():
            value.name = name if number == 0 else f"{name}_{number}"
