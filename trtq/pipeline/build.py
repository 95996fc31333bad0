"""Build: walk the stages of the modes that were asked for and run those that are missing or stale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trtq import backends, files, machine
from trtq.config import MODES, Mode, Recipe, did_you_mean
from trtq.errors import ConfigError
from trtq.pipeline import dry_run
from trtq.pipeline.modes import BuiltMode, Plan, Reporter, needed, stages
from trtq.pipeline.stage import is_fresh, run_stage


@dataclass(frozen=True)
class Step:
    """A stage that is about to run: its mode and name, and its place among all."""

    mode: BuiltMode
    stage: str
    number: int
    total: int


def build_recipe(
    recipe: Recipe,
    modes: Sequence[Mode],
    *,
    reporter: Reporter,
    on_step: Callable[[Step], None] = lambda _: None,
    waiting: Callable[[], None] = lambda: None,
    allow_pickle: bool = False,
) -> tuple[list[BuiltMode], int]:
    """Bring `modes`, and what they build on, up to date; return the modes and how many stages had to run.

    One process builds a recipe at a time; a second calls `waiting`, and waits. Raises what the stages raise.
    """
    wanted = needed(modes)
    dry_run.check_recipe_backends(recipe, [mode for mode in MODES if mode in wanted])
    with files.locked(recipe.folder, waiting):
        plans = [Plan(recipe, mode, reporter, allow_pickle) for mode in wanted]
        work = [(plan, stage) for plan in plans for stage in stages(plan)]
        ran = 0
        for number, (plan, stage) in enumerate(work, start=1):
            if is_fresh(plan.folder, stage):
                continue
            on_step(Step(plan.mode, stage.name, number, len(work)))
            run_stage(plan.folder, stage, _about(plan))
            ran += 1
    return wanted, ran


def explicit_ptq_note(recipe: Recipe, modes: Sequence[BuiltMode | Mode]) -> str | None:
    """Return the sentence that says what `ptq` means where a back end has no implicit mode, or None."""
    names = [name for name in recipe.engine.backends if not backends.builder(name).HAS_IMPLICIT_PTQ]
    if "ptq" not in modes or not names:
        return None
    return (
        f"ptq is explicit PTQ, Q/DQ in the ONNX file: {' and '.join(names)} cannot quantize a float network by itself"
    )


def _about(plan: Plan) -> dict[str, Any]:
    """Return what decides bytes besides the inputs: the machine's instruction sets, the threads and the seed."""
    return {
        "recipe": plan.recipe.name,
        "mode": plan.mode,
        "seed": plan.recipe.seed,
        "threads": plan.recipe.threads,
        "machine": machine.machine().to_json(),
    }


def parse_modes(text: str) -> tuple[Mode, ...]:
    """Return the modes in a list separated by commas; raises `ConfigError` for an unknown one."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in MODES:
            raise ConfigError(
                f"mode '{word}' is not known{did_you_mean(word, MODES) or '; known are ' + ', '.join(MODES)}"
            )
    if not words:
        raise ConfigError(f"no mode given; name some of {', '.join(MODES)}")
    return tuple(mode for mode in MODES if mode in words)
