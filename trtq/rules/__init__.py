"""The Q/DQ linter: one file a rule, listed in RULES; `lint` finds, `fix` mends what can be mended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from trtq.config import did_you_mean
from trtq.errors import ConfigError
from trtq.qdq.remembering import unchanged
from trtq.qdq.uncast import has_cast_pairs, without_casts
from trtq.rules import (
    pages,
    tq101_concat_scales_differ,
    tq102_pass_through_scales_differ,
    tq103_consumer_scales_differ,
    tq104_residual_scales_differ,
    tq105_pair_scales_differ,
    tq106_requantize,
    tq201_residual_not_quantized,
    tq202_half_quantized_op,
    tq203_pair_before_activation,
    tq204_batchnorm_not_folded,
    tq205_pair_before_pool_only,
    tq206_pool_read_twice,
    tq207_pair_between_pad_and_conv,
    tq208_global_pool_float,
    tq209_concat_branch_float,
    tq210_output_quantized,
    tq211_double_pair,
    tq212_dangling_quantize,
    tq213_float_island,
    tq301_zero_point_not_zero,
    tq302_uint8,
    tq303_zero_point_missing,
    tq304_bad_scale,
    tq305_dead_channel,
    tq306_per_channel_activation,
    tq307_wrong_axis,
    tq308_mixed_dtypes,
    tq309_computed_scale,
    tq310_bias_quantized,
    tq311_bad_weights,
    tq312_per_channel_conv_transpose,
    tq313_float_weights,
    tq401_opset_too_new,
    tq402_unsupported_operator,
    tq403_integer_operator,
    tq404_sm75_limits,
    tq405_too_deep,
    tq901_node_names,
    tq902_dead_nodes,
    tq903_duplicate_constants,
)
from trtq.rules.finding import NOTHING_KNOWN, Context, Finding, Rule
from trtq.rules.pages import page

__all__ = ["RULES", "Context", "Finding", "Rule", "catalogue", "fix", "lint", "mend", "page", "rule"]

ROUNDS_LIMIT = 8  # a guard against rules that would undo each other; three were the most that a file took
PLACEMENT = ("TQ1", "TQ2")  # families that look at what stands beside what
RULES: tuple[Rule, ...] = (
    tq101_concat_scales_differ.RULE,
    tq102_pass_through_scales_differ.RULE,
    tq103_consumer_scales_differ.RULE,
    tq104_residual_scales_differ.RULE,
    tq105_pair_scales_differ.RULE,
    tq106_requantize.RULE,
    tq201_residual_not_quantized.RULE,
    tq202_half_quantized_op.RULE,
    tq203_pair_before_activation.RULE,
    tq204_batchnorm_not_folded.RULE,
    tq205_pair_before_pool_only.RULE,
    tq206_pool_read_twice.RULE,
    tq207_pair_between_pad_and_conv.RULE,
    tq208_global_pool_float.RULE,
    tq209_concat_branch_float.RULE,
    tq210_output_quantized.RULE,
    tq211_double_pair.RULE,
    tq212_dangling_quantize.RULE,
    tq213_float_island.RULE,
    tq301_zero_point_not_zero.RULE,
    tq302_uint8.RULE,
    tq303_zero_point_missing.RULE,
    tq304_bad_scale.RULE,
    tq305_dead_channel.RULE,
    tq306_per_channel_activation.RULE,
    tq307_wrong_axis.RULE,
    tq308_mixed_dtypes.RULE,
    tq309_computed_scale.RULE,
    tq310_bias_quantized.RULE,
    tq311_bad_weights.RULE,
    tq312_per_channel_conv_transpose.RULE,
    tq313_float_weights.RULE,
    tq401_opset_too_new.RULE,
    tq402_unsupported_operator.RULE,
    tq403_integer_operator.RULE,
    tq404_sm75_limits.RULE,
    tq405_too_deep.RULE,
    tq901_node_names.RULE,
    tq902_dead_nodes.RULE,
    tq903_duplicate_constants.RULE,
)


def chosen(target: str | None, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Return the rules that hold for `target`, of those selected and not ignored; raises `ConfigError` as `lint`."""
    wanted = {rule(code).code for code in select} or {one.code for one in RULES}
    wanted -= {rule(code).code for code in ignore}
    return tuple(one for one in RULES if one.code in wanted and target in (None, *one.targets))


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
    checked = chosen(context.target, select, ignore)
    if not has_cast_pairs(model):
        with unchanged():
            return tuple(finding for one in checked for finding in one.check(model, context))
    view = without_casts(model)
    with unchanged():
        return tuple(finding for one in checked for finding in _seen_through_casts(one, model, view, context))


def _seen_through_casts(one: Rule, model: ir.Model, view: ir.Model, context: Context) -> Iterator[Finding]:
    """Yield what a rule finds in a network cast to FP16: placement is judged as if no cast were there, and stays.

    Fixes put pairs and scales where no cast is in the way, so placement is mended before a network is cast.
    """
    if not one.code.startswith(PLACEMENT):
        yield from one.check(model, context)
        return
    for finding in one.check(view, context):
        yield dataclasses.replace(finding, fixable=False)


def fix(model: ir.Model, findings: Sequence[Finding], *, context: Context = NOTHING_KNOWN) -> int:
    """Mend the fixable ones of `findings` in place, scales before placement; return how many were mended.

    What it mends may be a matter of other rules from then on: `mend` sees to those too.
    """
    mended = 0
    for one in RULES:
        fixable = [finding for finding in findings if finding.code == one.code and finding.fixable]
        if fixable and one.fix is not None:
            mended += one.fix(model, fixable, context)
    return mended


def mend(
    model: ir.Model,
    *,
    context: Context = NOTHING_KNOWN,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> int:
    """Lint and fix in place until nothing fixable is left; return how many findings were mended.

    More than one round is needed where a mended tensor takes part in rules that it was no matter of before: a uint8
    tensor made int8 belongs to a scale group. Raises `ConfigError` for an unknown code.
    """
    select, ignore = tuple(select), tuple(ignore)
    mended = 0
    for _ in range(ROUNDS_LIMIT):
        found = lint(model, context=context, select=select, ignore=ignore)
        done = fix(model, found, context=context)
        mended += done
        if not done:
            break
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
