"""Which scale groups keep their scales: those that the user names, and those that would cost too much."""

from __future__ import annotations

from collections.abc import Sequence

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.qdq.groups import ScaleGroup


def named(groups: Sequence[ScaleGroup], words: Sequence[str]) -> tuple[str, ...]:
    """Return for each group why it is left, an empty string where it is not.

    words: names of tensors, each naming the group that holds it, or operators ("Concat"), each naming every group that
    one of them joins. Raises `ConfigError` for a word that names no group.
    """
    known: dict[str, set[int]] = {}
    for index, group in enumerate(groups):
        for word in (*group.operators, *group.tensors):
            known.setdefault(word, set()).add(index)
    reasons = [""] * len(groups)
    for word in words:
        if word not in known:
            operators = sorted({operator for group in groups for operator in group.operators})
            hint = did_you_mean(word, known) or f"; operators that join groups here: {', '.join(operators) or 'none'}"
            raise ConfigError(
                f"leave '{word}': is neither a tensor of a scale group nor an operator that joins one{hint}"
            )
        for index in known[word]:
            joins = word in groups[index].operators and word not in groups[index].tensors
            reasons[index] = reasons[index] or (f"{word} joins it" if joins else f"'{word}' was named")
    return tuple(reasons)


def costly(loss_db: float, max_loss_db: float | None, origin: str) -> str:
    """Return why a group that loses `loss_db` is left, an empty string where it is not.

    origin: "measured" or "predicted".
    """
    if max_loss_db is None or loss_db <= max_loss_db:
        return ""
    return f"{origin} loss {loss_db:.2f} dB, more than {max_loss_db:g}"
