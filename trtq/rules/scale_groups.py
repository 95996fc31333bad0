"""What TQ101, TQ102 and TQ103 share: one finding for each scale group that disagrees, mended by unifying it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from trtq import qdq
from trtq.rules.finding import Context, Finding

SHOWN_TENSORS = 4


def disagreeing(
    model: ir.Model,
    code: str,
    name: str,
    belongs: Callable[[qdq.ScaleGroup], bool],
    why: Callable[[qdq.ScaleGroup], str],
) -> Iterator[Finding]:
    """Yield a finding for each group that `belongs` to the rule and has several scales.

    why: what the message says of the tensors before "quantized with ... scales".
    """
    for group in qdq.groups(model):
        if group.agrees or not belongs(group):
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


def operators(group: qdq.ScaleGroup) -> set[str]:
    """Return the types of the operators that join `group`."""
    return {label.split(" ", 1)[0] for label in group.joined_by}


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
