"""How sure a statement about a tensor is: by the operators that write and read it, and by its dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from trtq.layers.graph import Layer
from trtq.predict.fusion import ACTIVATIONS, UNCOVERED, Group
from trtq.predict.network import ARITHMETIC, Activation, Op
from trtq.qdq import reading

Confidence = Literal["certain", "likely", "unknown"]
WEAKEST_FIRST: tuple[Confidence, ...] = ("unknown", "likely", "certain")
# What the published engines hold, so that the rules were seen at work on it.
SEEN = frozenset(
    {"Conv", "Gemm", "MaxPool", "Add", "Concat", "GlobalAveragePool", "AveragePool", "BatchNormalization", "Relu",
     "Clip", "Flatten", "Reshape", "QuantizeLinear", "DequantizeLinear"}
)  # fmt: skip
# What documents and build logs alone speak of. No rule speaks of any other operator: int8 around it is unknown.
DOCUMENTED = SEEN | ACTIVATIONS | ARITHMETIC | {
    "ConvTranspose", "MatMul", "Slice", "Split", "Transpose", "Squeeze", "Unsqueeze", "Resize", "Upsample", "Pad",
}  # fmt: skip


class Judge:
    """Says how sure statements about one network are; `sure` where the rules were checked on such engines.

    `is_static`: as of the network.
    """

    def __init__(self, *, sure: bool, is_static: bool) -> None:
        self._sure = sure
        self._is_static = is_static
        self._meets: dict[Op, bool] = {}

    def confidence(self, group: Group, result: Activation) -> Confidence:
        """Return how sure the type of `result` is, which `group` writes.

        Unknown next to operators that TensorRT hands to another compiler, for shapes that are dynamic beyond the batch,
        and where a Q or DQ meets what no rule, or more than one, speaks of; likely where no published engine shows the
        operators around it, where the batch is free, and unless `sure`.
        """
        around = [*group.ops, *_readers(result)]
        kinds = {op.kind for op in around}
        if any(kind in UNCOVERED or "." in kind for kind in kinds):
            return "unknown"
        if not self._is_static and any(dim < 0 for dim in result.dims[1:]):
            return "unknown"
        if not kinds <= DOCUMENTED and any(map(self._meets_converter, around)):
            return "unknown"
        if _lacks_a_rule(group) or any(map(is_disputed, [*group.ops, *(user for user, _ in result.uses)])):
            return "unknown"
        fused_pool = group.pool is not None
        seen = kinds <= SEEN and not fused_pool and all(dim >= 0 for dim in result.dims)
        return "certain" if self._sure and seen else "likely"

    def _meets_converter(self, op: Op) -> bool:
        if op not in self._meets:
            before = [source.producer for source in op.inputs]
            after = [user for output in op.outputs for user, _ in output.uses]
            self._meets[op] = any(one is not None and (one.is_quantize or one.is_dequantize) for one in before + after)
        return self._meets[op]

    def of_layers(self, layers: Sequence[Layer], results: Mapping[str, Confidence]) -> tuple[Confidence, ...]:
        """Return how sure each layer is: a kernel as its result, a conversion or copy as the weakest result around it.

        A Q on the network's input is always a conversion.
        """
        written = {tensor.name for layer in layers for tensor in layer.outputs}
        readers: dict[str, list[Confidence]] = {}
        for layer in layers:
            own = [results[tensor.name] for tensor in layer.outputs if tensor.name in results]
            for tensor in layer.inputs:
                readers.setdefault(tensor.name, []).extend(own)
        return tuple(
            ("certain" if self._sure else "likely")
            if layer.kind == "quantize" and layer.inputs[0].name not in written
            else _of_layer(layer, results, readers)
            for layer in layers
        )


def is_disputed(op: Op) -> bool:
    """Tell whether `op` adds a dequantized tensor to what an int8 kernel and its activation write.

    By TensorRT's guide an activation between convolution and Add keeps them apart, so that the Add is a float kernel,
    and users of 8.5 and 10.6 report so (TensorRT issue 3861); ModelOpt places Q and DQ as if they did fuse (pull
    request 450), which TensorRT's own answer to that issue suggests too.
    """
    if op.kind != "Add" or len(op.inputs) != 2:
        return False
    makers = [source.producer for source in op.inputs]
    activated = [one for one in makers if one is not None and one.kind in ("Mul", *ACTIVATIONS)]
    return len(activated) == 1 and any(one is not None and one.is_dequantize for one in makers)


def _of_layer(layer: Layer, results: Mapping[str, Confidence], readers: Mapping[str, list[Confidence]]) -> Confidence:
    own = [results[tensor.name] for tensor in layer.outputs if tensor.name in results]
    if own:
        return own[0]
    around = [results[tensor.name] for tensor in layer.inputs if tensor.name in results]
    around += [one for tensor in layer.outputs for one in readers.get(tensor.name, ())]
    if layer.kind == "copy":
        around.append("likely")  # which kernels cannot write into a part of a tensor is known from one log
    return min(around, key=WEAKEST_FIRST.index, default="likely")


def _lacks_a_rule(group: Group) -> bool:
    """Tell whether a float kernel reads dequantized tensors alone and no rule says whether TensorRT runs it in int8.

    A product, and a BatchNorm that folds into nothing: NVIDIA's tools quantize their inputs, and no document names a
    kernel. A sum whose activation is quantized.
    """
    head = group.head
    makers = [source.producer for source in head.inputs]
    if not makers or not all(maker is not None and maker.is_dequantize for maker in makers):
        return False
    if head.kind == "BatchNormalization":
        return True
    if len(makers) < 2:
        return False
    return head.kind == "Mul" or (head.kind == "Add" and _is_activated_and_quantized(group.final))


def _is_activated_and_quantized(activation: Activation) -> bool:
    user = activation.only_user()
    after = user.outputs[0].only_user() if user is not None and user.kind in ACTIVATIONS else None
    return after is not None and after.is_quantize


def _readers(activation: Activation) -> list[Op]:
    """Return what reads a tensor, behind its Q and DQ too."""
    found: list[Op] = []
    reached = [activation]
    while reached:
        for user, _ in reached.pop().uses:
            if user.kind in (reading.QUANTIZE, reading.DEQUANTIZE):
                reached.extend(user.outputs)
            else:
                found.append(user)
    return found
