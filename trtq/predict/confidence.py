"""How sure a statement about a tensor is: by the operators that write and read it, and by its dimensions."""

from __future__ import annotations

from typing import Literal

from trtq.predict.fusion import UNCOVERED, Group
from trtq.predict.network import Activation, Op

Confidence = Literal["certain", "likely", "unknown"]
# What the published engines hold, so that the rules were seen at work on it; all else in reach of the rules is likely.
SEEN = frozenset(
    {"Conv", "Gemm", "MaxPool", "Add", "Concat", "GlobalAveragePool", "AveragePool", "BatchNormalization", "Relu",
     "Clip", "Flatten", "Reshape", "QuantizeLinear", "DequantizeLinear"}
)  # fmt: skip


def confidence_of(group: Group, result: Activation, *, sure: bool) -> Confidence:
    """Return how sure the type of `result` is, which `group` writes.

    Unknown next to operators that TensorRT hands to another compiler, and for shapes that are dynamic beyond the batch;
    likely where no published engine shows the operators around it, where the batch is free, and unless `sure`.
    """
    around = {op.kind for op in (*group.ops, *_readers(result))}
    if any(kind in UNCOVERED or "." in kind for kind in around) or any(dim < 0 for dim in result.dims[1:]):
        return "unknown"
    return "certain" if sure and around <= SEEN and all(dim >= 0 for dim in result.dims) else "likely"


def _readers(activation: Activation) -> list[Op]:
    """Return what reads a tensor, behind its Q and DQ too."""
    found: list[Op] = []
    reached = [activation]
    while reached:
        for user, _ in reached.pop().uses:
            if user.is_quantize or user.is_dequantize:
                reached.extend(user.outputs)
            else:
                found.append(user)
    return found
