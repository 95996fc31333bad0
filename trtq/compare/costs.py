"""What differences cost: B minus A in microseconds and bytes, and how fine the profiles tell it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

from trtq.compare import aspects
from trtq.compare.difference import Role
from trtq.compare.entries import is_copy
from trtq.compare.joining import Group
from trtq.compare.views import View, Views
from trtq.layers import kinds
from trtq.layers.graph import Layer, LayerGraph
from trtq.layers.signals import traffic_bytes

# TensorRT's profiler counts ticks of a GPU clock; steps are looked for in what is far above a float's noise.
LEAST_STEP_US = 0.01
STEP_NOISE = 0.02
ROLES = ("convolutions", "pools", "Q/DQ conversions", "reformats and copies", "other")


class Costs:
    """Costs of groups of layers in two engines; None where a cost means nothing."""

    def __init__(self, views: Views, groups: Sequence[Group]) -> None:
        self._views = views
        self._groups = groups
        self.is_profiled = all(view.graph.signals.time_us is not None for view in views)
        self.bytes_tell = _bytes_tell(views[0].graph, views[1].graph)

    def us(self, group: Group) -> float | None:
        """Return B's time minus A's, None unless both engines are profiled."""
        if not self.is_profiled:
            return None
        a, b = (_time_us(view.layers(indices)) for view, indices in self._sides(group))
        return round(b - a, 3)

    def bytes(self, group: Group) -> int | None:
        """Return the bytes that B moves minus A's, None where a size is not known or says nothing."""
        a, b = (traffic_bytes(view.layers(indices)) for view, indices in self._sides(group))
        return b - a if self.bytes_tell and a is not None and b is not None else None

    def weight(self, group: Group) -> float:
        """Return what a group is ranked by: its time where profiled, else its bytes, else nothing."""
        us = self.us(group)
        return us if us is not None else float(self.bytes(group) or 0)

    def is_shown(self, group: Group) -> bool:
        """Tell whether a group's time differs by more than the profiles' step for so many layers.

        Each layer's time is off by up to a step, either way: those of n layers together by its square root times n.
        """
        us = self.us(group)
        if us is None or self.resolution_us is None:
            return True
        rows = max(sum(bool(layer.time_us) for layer in view.layers(indices)) for view, indices in self._sides(group))
        return abs(us) > self.resolution_us * math.sqrt(max(rows, 1)) + 1e-9

    @cached_property
    def resolution_us(self) -> float | None:
        """The time that a layer has to differ by to tell: the clock's step, or what layers that are alike differ by.

        The median over pairs of layers that read and write the same with the same kernel. None without profiles.
        """
        if not self.is_profiled:
            return None
        steps = [step for view in self._views if (step := step_us(_times(view))) is not None]
        alike = [abs(self.us(group) or 0.0) for group in self._groups if self._are_alike(group)]
        return round(max([*steps, statistics.median(alike) if alike else 0.0], default=0.0), 3)

    def roles(self) -> tuple[Role, ...]:
        """Return what the layers of each role take in both engines; roles that neither has are left out."""
        by_role = [_by_role(view.graph.layers) for view in self._views]
        found = []
        for role in ROLES:
            sides = [one[role] for one in by_role]
            if any(sides):
                times = [_time_us(side) if self.is_profiled else None for side in sides]
                moved = [traffic_bytes(side) if self.bytes_tell else None for side in sides]
                found.append(Role(role, len(sides[0]), len(sides[1]), times[0], times[1], moved[0], moved[1]))
        return tuple(found)

    def _sides(self, group: Group) -> tuple[tuple[View, tuple[int, ...]], tuple[View, tuple[int, ...]]]:
        return (self._views[0], group.a), (self._views[1], group.b)

    def _are_alike(self, group: Group) -> bool:
        if len(group.a) != 1 or len(group.b) != 1:
            return False
        one, other = self._views[0].graph.layers[group.a[0]], self._views[1].graph.layers[group.b[0]]
        if not one.time_us or not other.time_us or one.tactic != other.tactic:
            return False
        return aspects.class_of([one], [other]) is None


def step_us(times_us: Sequence[float]) -> float | None:
    """Return the step that all times are multiples of, None where there is none to be seen.

    A profile of one iteration has times in whole ticks; means over many iterations have none.
    """
    positive = sorted({round(time, 4) for time in times_us if time > LEAST_STEP_US})
    gaps = [after - before for before, after in pairwise(positive)]
    wide = [gap for gap in gaps if gap > LEAST_STEP_US]
    if len(wide) < 2:
        return None
    step = min(wide)
    fits = all(abs(time / step - round(time / step)) < STEP_NOISE * max(1.0, time / step / 50) for time in positive)
    return step if fits else None


def _bytes_tell(a: LayerGraph, b: LayerGraph) -> bool:
    if not any(layer.outputs for layer in a.layers) or not any(layer.outputs for layer in b.layers):
        return False
    across_precisions = bool(a.signals.int8_share) != bool(b.signals.int8_share)
    return not (a.origin == b.origin == "compiled" and across_precisions)


def _times(view: View) -> list[float]:
    return [layer.time_us for layer in view.graph.layers if layer.time_us is not None]


def _time_us(layers: Iterable[Layer]) -> float:
    return round(sum(layer.time_us or 0.0 for layer in layers), 3)


def _by_role(layers: Iterable[Layer]) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {role: [] for role in ROLES}
    for layer in layers:
        found[_role(layer)].append(layer)
    return found


def _role(layer: Layer) -> str:
    if kinds.is_conversion(layer):
        return ROLES[2]
    if is_copy(layer):
        return ROLES[3]
    if kinds.is_compute(layer):
        return ROLES[0]
    return ROLES[1] if kinds.family(layer) == "pool" else ROLES[4]
