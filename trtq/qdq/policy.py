"""Which scale a group gets, and what that is predicted to cost each member."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Literal

import numpy as np

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.qdq.groups import Member, ScaleGroup
from trtq.qdq.statistics import Statistics

Policy = Literal["max", "output", "weighted"]
POLICIES: tuple[Policy, ...] = typing.get_args(Policy)
CANDIDATES = 33


def choose(group: ScaleGroup, policy: Policy, statistics: Mapping[str, Statistics]) -> float:
    """Return the group's scale, as the narrowest float type that its members store can hold it.

    max: the widest, so that nothing clips that did not clip before. output: that of the last quantizer in graph order,
    the one nearest to the consumer. weighted: the one with the least noise summed over the members, each member's noise
    relative to its own power; without `statistics` (by tensor name) all count alike, the geometric mean.
    Raises `ConfigError` for another policy.
    """
    if policy not in POLICIES:
        known = f"; it must be one of {', '.join(POLICIES)}"
        raise ConfigError(f"policy '{policy}' is not known{did_you_mean(policy, POLICIES) or known}")
    if group.agrees:
        return group.scales[0]
    if policy == "max":
        scale = max(group.scales)
    elif policy == "output":
        scale = group.members[-1].scale
    else:
        scale = _weighted(group, statistics)
    narrowest = min((member.dtype for member in group.members), key=lambda dtype: dtype.itemsize)
    return float(np.asarray(scale, narrowest))


def predicted_loss_db(member: Member, scale: float, statistics: Statistics | None) -> float:
    """Return the SQNR in dB that a member loses by `scale`; negative where it gains.

    With statistics from their noise at both scales. Without, 20 log10 of the step ratio, since rounding noise is
    step^2 / 12; a finer step then counts as no gain, because what clips is not known.
    """
    if statistics is not None and statistics.power > 0:
        return statistics.sqnr_db(member.scale) - statistics.sqnr_db(scale)
    return max(0.0, 20 * math.log10(scale / member.scale))


def _weighted(group: ScaleGroup, statistics: Mapping[str, Statistics]) -> float:
    known = [statistics[member.tensor] for member in group.members if member.tensor in statistics]
    known = [one for one in known if one.power > 0]
    if not known:
        return math.exp(sum(map(math.log, group.scales)) / len(group.scales))
    between = np.geomspace(min(group.scales), max(group.scales), CANDIDATES)
    candidates = sorted({*group.scales, *map(float, between)})
    return min(candidates, key=lambda scale: sum(one.noise(scale) / one.power for one in known))
