"""The Q/DQ linter: one file a rule, listed in RULES; `lint` finds, `fix` mends what can be mended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.rules import (
    pages,
    tq101_concat_scales_differ,
    tq102_pass_through_scales_differ,
    tq103_consumer_scales_differ,
    tq201_residual_not_quantized,
    tq301_zero_point_not_zero,
    tq304_bad_scale,
)
from trtq.rules.finding import NOTHING_KNOWN, Context, Finding, Rule
from trtq.rules.pages import page

__all__ = ["RULES", "Context", "Finding", "Rule", "catalogue", "fix", "lint", "page", "rule"]

RULES: tuple[Rule, ...] = (
    tq101_concat_scales_differ.RULE,
    tq102_pass_through_scales_differ.RULE,
    tq103_consumer_scales_differ.RULE,
    tq201_residual_not_quantized.RULE,
    tq301_zero_point_not_zero.RULE,
    tq304_bad_scale.RULE,
)


def lint(
    model: ir.Model,
    *,
    context: Context = NOTHING_KNOWN,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """Return what the rules find in a Q/DQ graph, rule by rule, each in graph order.

    context: with a target, only the rules that hold for it are checked. select: the codes to check; none means all.
    ignore: codes to leave out. Raises `ConfigError` for an unknown code.
    """
    wanted = {rule(code).code for code in select} or {one.code for one in RULES}
    wanted -= {rule(code).code for code in ignore}
    checked = [one for one in RULES if one.code in wanted and context.target in (None, *one.targets)]
    return tuple(finding for one in checked for finding in one.check(model, context))


def fix(model: ir.Model, findings: Sequence[Finding], *, context: Context = NOTHING_KNOWN) -> int:
    """Mend the fixable ones of `findings` in place, scales before placement; return how many were mended.

    One call is enough: what it leaves is not fixable.
    """
    mended = 0
    for one in RULES:
        fixable = [finding for finding in findings if finding.code == one.code and finding.fixable]
        if fixable and one.fix is not None:
            mended += one.fix(model, fixable, context)
    return mended


def rule(code: str) -> Rule:
    """Return the rule with this code; raises `ConfigError` for an unknown one."""
    for one in RULES:
        if one.code == code:
            return one
    known = [one.code for one in RULES]
    hint = did_you_mean(code, known) or f"; known rules are {', '.join(known)}"
    raise ConfigError(f"no rule '{code}'{hint}")


def catalogue() -> str:
    """Return every rule's page as one Markdown document: docs/rules.md."""
    return pages.catalogue(RULES)
