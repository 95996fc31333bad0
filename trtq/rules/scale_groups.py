"""What the rules on scale groups share: one finding for each group that disagrees, mended by unifying it.

Each group is one rule's, the first whose description fits: TQ203 where all scales agree but those of pairs between a
kernel and its activation, TQ101 where a Concat joins it, TQ104 where a residual has a
scale of its own, TQ106 where integers are requantized, TQ102 where operators pass values on, TQ103 for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trtq import qdq
from trtq.qdq import reading
from trtq.qdq.groups import is_member, joint_of
from trtq.qdq.remembering import remembered
from trtq.rules import breaks, readers
from trtq.rules.finding import Context, Finding

SHOWN_TENSORS = 4
COPIES = ("Identity", "Cast", "Dropout")


def disagreeing(
    model: ir.Model,
    code: str,
    name: str,
    why: Callable[[qdq.ScaleGroup], str],
) -> Iterator[Finding]:
    """Yield a finding for each group that is this rule's and has several scales.

    why: what the message says of the tensors before "quantized with ... scales".
    """
    disagree = [group for group in qdq.groups(model) if not group.agrees]
    facts = _facts(model) if disagree else None
    for group in disagree:
        assert facts is not None
        if facts.rule_of(group) != code:
            continue
        widest = max(group.scales)
        yield Finding(
            code=code,
            name=name,
            tensors=group.tensors,
            removes=tuple(member.quantized for member in group.members if member.scale != widest),
            message=f"{_tensors(group)}: {why(group)} {_remedy(group, widest)}",
            safety="numeric",
            fixable=True,
        )


def unify(model: ir.Model, findings: Sequence[Finding], context: Context) -> int:
    """Give each finding's group its widest scale, in place; return how many groups changed."""
    wanted = {finding.tensors for finding in findings}
    report = qdq.unify(model, only=lambda group: group.tensors in wanted)
    return sum(not one.group.agrees for one in report.groups)


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: the first few, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN_TENSORS])
    return f"{shown} and {len(names) - SHOWN_TENSORS} more" if len(names) > SHOWN_TENSORS else shown


def _tensors(group: qdq.ScaleGroup) -> str:
    tensors = group.tensors
    return f"tensor{'s' if len(tensors) > 1 else ''} {listed(tensors)}"


def _remedy(group: qdq.ScaleGroup, widest: float) -> str:
    count, narrowest = len(set(group.scales)), min(group.scales)
    bits = math.log2(widest / narrowest)
    likely = " (likely, not certain, for these operators)" if group.confidence == "likely" else ""
    return (
        f"quantized with {count} scales ({narrowest:.4g} to {widest:.4g}), so TensorRT converts between them{likely};"
        f" give them one scale: the fix takes the widest, up to {bits:.2f} bits coarser"
    )


@dataclass(frozen=True)
class _Facts:
    """What tells the rules' groups apart; quantizers are named by what they write.

    requantizing: the quantizers whose values come from a DequantizeLinear of another scale. residual: those that
    quantize a residual. breaking: those of pairs that TQ203 takes away. copied: the tensor that each one quantizes,
    before copies of it, by id.
    """

    requantizing: frozenset[str]
    residual: frozenset[str]
    breaking: frozenset[str]
    copied: dict[str, int]

    def rule_of(self, group: qdq.ScaleGroup) -> str:
        """Return the code of the rule that reports `group`."""
        if len({member.scale for member in group.members if member.quantized not in self.breaking}) < 2:
            return "TQ203"
        if "Concat" in group.operators:
            return "TQ101"
        if self._residual_differs(group):
            return "TQ104"
        if any(member.quantized in self.requantizing for member in group.members):
            return "TQ106"
        return "TQ102" if group.joined_by else "TQ103"

    def _residual_differs(self, group: qdq.ScaleGroup) -> bool:
        """Tell whether a residual of the group is quantized with another scale than the same tensor elsewhere."""
        scales: dict[int, set[float]] = {}
        for member in group.members:
            scales.setdefault(self.copied[member.quantized], set()).add(member.scale)
        residuals = (self.copied[one.quantized] for one in group.members if one.quantized in self.residual)
        return any(len(scales[tensor]) > 1 for tensor in residuals)


@remembered
def _facts(model: ir.Model) -> _Facts:
    """Return the facts of a graph; linear in its size."""
    dequantized: dict[int, float | None] = {}  # the scale of tensors that come from a DequantizeLinear
    originals: dict[int, int] = {}
    copied: dict[str, int] = {}
    requantizing: set[str] = set()
    residual: set[str] = set()
    for node in reading.nodes(model):
        first = id(node.inputs[0]) if node.inputs else 0
        joint = joint_of(node)
        if is_member(node):
            name = reading.name(node.outputs[0])
            copied[name] = originals.get(first, first)
            if first in dequantized and dequantized[first] != reading.scalar_scale(node):
                requantizing.add(name)
        elif reading.is_dequantize(node):
            dequantized[id(node.outputs[0])] = reading.scalar_scale(node)
        elif joint is not None and not joint.all_inputs:
            if node.op_type in COPIES:
                originals[id(node.outputs[0])] = originals.get(first, first)
            if first in dequantized:
                dequantized.update((id(value), dequantized[first]) for value in node.outputs)
        elif node.op_type == "Add":
            residual.update(_quantizers_of(node))
    breaking = {reading.name(one.outputs[0]) for broken in breaks.find(model) for one in broken.pairs}
    return _Facts(frozenset(requantizing), frozenset(residual), frozenset(breaking), copied)


def _quantizers_of(add: ir.Node) -> Iterator[str]:
    """Yield the quantizers in front of an Add of two activations."""
    if any(reading.is_constant(value) for value in add.inputs):
        return
    for value in add.inputs:
        dequantizer = readers.dequantizer_before(value)
        quantizer = None if dequantizer is None else readers.quantizer_before(dequantizer)
        if quantizer is not None:
            yield reading.name(quantizer.outputs[0])
