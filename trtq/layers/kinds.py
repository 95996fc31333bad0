"""What a layer is, read off its kind and name: arithmetic, plain move, conversion, or something else."""

from __future__ import annotations

import re

from trtq.layers.graph import FLOATS, Layer, Tensor

CONVERSIONS = frozenset(
    {"Reformat QDQ", "Scale QDQ", "QuantizeLinear", "DequantizeLinear", "quantize", "dequantize", "requantize"}
)
# Layer types that TensorRT 8.2 to 11 and TensorRT-RTX 1.7 are known to write.
KNOWN = frozenset(
    {
        "Reformat", "CaskConvolution", "CaskGemmConvolution", "CaskPooling", "CudaPooling", "TiledPooling",
        "CudaDepthwiseConvolution", "FusedConvActConvolution", "CaskConvActPool", "ConvActPool", "PointWiseV2",
        "Scale", "Shuffle", "NoOp", "Myelin", "SoftMax", "CaskSoftMaxV2", "NMS", "PluginV2", "MyelinReformat",
        "CaskDeconvolution", "CaskGemmMatrixMultiply", "CaskFullyConnected", "CaskFlattenConvolution", "kgen",
        "gemm", "shape_call", "signal", "wait", "signal_and_wait", "fusion", "correlation", "maxpool", "avgpool",
        "custom_layer", "reshape", "deconv", "runtime_fusion", "runtime_function", "Reduce", "TopK", "Gather",
        "Slice", "Padding", "Resize", "ElementWise", "Constant", "Copy", "TrainStation",
    }
)  # fmt: skip
NO_OPERATION = "NoOp"
COMPUTE_WORDS = ("conv", "correlation", "gemm", "matmul", "fullyconnected", "runtime_fusion", "runtime_function")
POOL_WORDS = ("pool",)
MOVE_TOKENS = frozenset(
    {"Move", "Conc", "Slic", "Tran", "Resh", "Gath", "Scat", "Pad", "Expa", "Bcas", "Sque", "Unsq", "Tile", "Copy"}
)
GENERATED = "__myl_"
_SUFFIX = re.compile(r"(?: \[profile \d+\])?_myl\d+_\d+$")
_TOKEN = re.compile(r"[A-Z][a-z0-9]*")


def operations(layer: Layer) -> tuple[str, ...]:
    """Return the steps of a generated kernel, read off its name (`__myl_MulMinMaxRounCast_myl0_0`), else nothing.

    TensorRT cuts long names and ends them with `Etc`: then the steps are those of the visible part.
    """
    if not layer.name.startswith(GENERATED):
        return ()
    return tuple(_TOKEN.findall(_SUFFIX.sub("", layer.name[len(GENERATED) :])))


def is_move(layer: Layer) -> bool:
    """Tell whether the kernel only moves data: copies, slices, transposes, concatenations."""
    steps = operations(layer)
    return bool(steps) and all(step in MOVE_TOKENS for step in steps)


def is_compute(layer: Layer) -> bool:
    """Tell whether the layer is a convolution or a matrix product, alone or fused."""
    kind = layer.kind.lower()
    return any(word in kind for word in COMPUTE_WORDS)


def is_idle(layer: Layer) -> bool:
    """Tell whether the layer launches no kernel: it only renames memory, so it reads and writes nothing."""
    return layer.kind == NO_OPERATION


def is_conversion(layer: Layer) -> bool:
    """Tell whether the layer is a quantize or dequantize that survived as a kernel of its own."""
    return layer.kind in CONVERSIONS


def writes_twice(layer: Layer) -> bool:
    """Tell whether a kernel other than a plain move writes more than one output of equal dimensions."""
    dims = [tensor.dims for tensor in layer.outputs]
    return len(set(dims)) < len(dims) and not is_move(layer)


def requantizes(layer: Layer) -> bool:
    """Tell whether a generated kernel rounds more often than it has float inputs, or takes int8 to int8.

    The count of roundings comes from the kernel's name, and is a lower bound where TensorRT cut the name.
    """
    steps = operations(layer)
    if not steps or is_move(layer):
        return False
    rounds = sum(step == "Roun" for step in steps)
    floats = sum(is_float(tensor) for tensor in layer.inputs)
    only_int8 = bool(layer.inputs) and all(tensor.dtype == "int8" for tensor in layer.inputs)
    return rounds > floats or (only_int8 and any(tensor.dtype == "int8" for tensor in layer.outputs))


def is_float(tensor: Tensor) -> bool:
    """Tell whether the tensor holds floats of any width."""
    return tensor.dtype in FLOATS


def runs_int8(layer: Layer) -> bool | None:
    """Tell whether the layer multiplies int8, or None when that is not known.

    The weights' dtype says it where the engine's description has it; else an int8 input does, at whatever place: the
    first input may be a residual. A layer whose known inputs are floats is undecided while another is not known.
    """
    if layer.precision != "unknown":
        return layer.precision == "int8"
    dtypes = {tensor.dtype for tensor in layer.inputs}
    if "int8" in dtypes:
        return True
    return None if not dtypes or "unknown" in dtypes else False


def family(layer: Layer) -> str:
    """Return the word under which layers of different builders and precisions may be matched."""
    kind = layer.kind.lower()
    if is_conversion(layer):
        return "conversion"
    if is_compute(layer):
        return "compute"
    if any(word in kind for word in POOL_WORDS):
        return "pool"
    if is_move(layer):
        return "move"
    return kind
