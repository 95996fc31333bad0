"""A comparison in sentences: what the whole difference consists of, and what can not be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trtq.compare.difference import Comparison, Role

CONVERSIONS = "Q/DQ conversions"


def notes(comparison: Comparison, float_joins: Sequence[int], inputs: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """Return the sentences that sum a comparison up.

    float_joins: how many residuals A and B add in float. inputs: the dimensions of what A and B read.
    """
    return tuple(_notes(comparison, float_joins, inputs))


def _notes(comparison: Comparison, float_joins: Sequence[int], inputs: Sequence[tuple[int, ...]]) -> Iterator[str]:
    yield (
        f"aligned: {_percent(comparison.share_a)} of the layers of {comparison.a}, "
        f"{_percent(comparison.share_b)} of those of {comparison.b}"
    )
    if len(set(inputs)) > 1 and all(inputs):
        one, two = ("×".join(map(str, dims)) for dims in inputs)
        yield f"{comparison.a} reads {one} and {comparison.b} {two}: costs hold that difference too"
    yield from _times(comparison)
    for name, count, other in zip((comparison.a, comparison.b), float_joins, float_joins[::-1], strict=True):
        if count > other:
            residuals = "1 residual" if count == 1 else f"{count} residuals"
            yield f"{name} adds {residuals} in float to what it computes in int8, so those layers write float"
    if comparison.total_us is None and comparison.total_bytes is None:
        yield "no cost: the engines are not both profiled, and their bytes cannot be told or compared"
    elif comparison.total_us is None:
        yield "costs are bytes moved, not time: the engines are not both profiled"


def _times(comparison: Comparison) -> Iterator[str]:
    total = comparison.total_us
    if total is None:
        return
    yield f"by the profiles {comparison.b} takes {_more(total)} than {comparison.a}: {_roles(comparison.roles)}"
    conversions = next((role.cost_us for role in comparison.roles if role.role == CONVERSIONS), None)
    if conversions is not None and total:
        yield (
            f"Q/DQ conversions themselves are {_signed(conversions)} of {_signed(total)} "
            f"({100 * conversions / total:.0f} %); the rest is in the layers around them"
        )
    if hidden := sum(not one.is_shown for one in comparison.differences):
        yield (
            f"{hidden} of {len(comparison.differences)} places: no difference shown, the change is within what "
            f"the profiles resolve ({comparison.resolution_us:g} µs a layer)"
        )
    if comparison.engine_us is not None:
        gap = total - comparison.engine_us
        yield (
            f"the engines' own mean times differ by {_signed(comparison.engine_us)}: the profiles show "
            f"{_signed(gap)} beside that, for a profiler waits after each layer"
        )


def _roles(roles: tuple[Role, ...]) -> str:
    told = sorted((role for role in roles if role.cost_us), key=lambda role: -abs(role.cost_us or 0.0))
    counts = (f"{role.role} {_signed(role.cost_us or 0.0)} ({role.layers_a} → {role.layers_b})" for role in told)
    return ", ".join(counts) or "each role takes the same"


def _more(us: float) -> str:
    return f"{abs(us):.1f} µs {'more' if us > 0 else 'less'}" if us else "no more and no less"


def _signed(us: float) -> str:
    return f"{us:+.1f} µs".replace("-", "\u2212")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
