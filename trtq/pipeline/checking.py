"""Lint a file with everything that the rules may know: target, calibration ranges, the parser's refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import onnx_ir as ir

from trtq import backends, files, ptq, qdq, rules
from trtq.config import did_you_mean
from trtq.data.images import load_images
from trtq.errors import ConfigError
from trtq.qdq.model import copy_weights, weights_bytes
from trtq.qdq.remembering import without_collection
from trtq.rules import Context, Finding, tq402_unsupported_operator
from trtq.rules.finding import EVERY_TARGET

# The back end whose parser says what it refuses, and the package that it is.
PARSER, PARSER_PACKAGE = "rtx", "tensorrt_rtx"


@dataclass(frozen=True)
class Linted:
    """What was found, how much of it was mended, and what remains."""

    findings: tuple[Finding, ...]
    mended: int
    remaining: tuple[Finding, ...]


def lint_file(
    source: Path,
    target_file: Path | None = None,
    *,
    target: str | None = None,
    calibration: Path | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Linted:
    """Check `source` and, with a `target_file`, mend it there; a file that needs no edit is copied byte for byte.

    target: as `parse_target` takes it. calibration: images as `data.images.load_images` takes them.
    Raises `ModelError`, `ConfigError` for unknown codes and targets or when the output is the input, `DataError` and
    `OutputError`.
    """
    if target_file is not None and target_file.resolve() == source.resolve():
        raise ConfigError(f"{target_file}: is the input itself; choose another output")
    context = make_context(target, calibration)
    asks = _asks(context, select, ignore)
    with without_collection():
        model = qdq.load(source)
        findings = rules.lint(
            model, context=_asking(context, source, model) if asks else context, select=select, ignore=ignore
        )
        if target_file is None:
            return Linted(findings, 0, findings)
        mended = rules.mend(model, context=context, select=select, ignore=ignore)
        if not mended:
            copy_weights(model, target_file.resolve().parent)
            files.write_bytes(target_file, source.read_bytes())
            return Linted(findings, 0, findings)
        qdq.save(model, target_file)
        again = _asking(context, target_file, model) if asks else context
        return Linted(findings, mended, rules.lint(model, context=again, select=select, ignore=ignore))


def make_context(target: str | None, calibration: Path | None) -> Context:
    """Return what the rules may know; raises `ConfigError` for an unknown target."""
    version, sm = (None, None) if target is None else parse_target(target)

    known: dict[str, float] = {}

    def ranges(model: ir.Model, tensors: Sequence[str]) -> Mapping[str, float]:
        assert calibration is not None
        # Check and fix ask for the same tensors: one pass over the images is enough for both.
        unknown = [name for name in tensors if name not in known]
        if unknown:
            known.update(ptq.max_of(model, unknown, load_images(calibration, ptq.input_shape(model))))
        return {name: known[name] for name in tensors}

    return Context(target=version, sm=sm, ranges=None if calibration is None else ranges)


def _asks(context: Context, select: Sequence[str], ignore: Sequence[str]) -> bool:
    """Tell whether a parser is here to be asked, and a rule that would ask it."""
    if context.target not in (None, PARSER) or find_spec(PARSER_PACKAGE) is None:
        return False
    return any(one is tq402_unsupported_operator.RULE for one in rules.chosen(context.target, select, ignore))


def _asking(context: Context, path: Path, model: ir.Model) -> Context:
    """Return `context` with what the parser refuses in `path`: it reads the file while other rules are checked."""
    answer = backends.ask(PARSER, path, weights_bytes(model))
    return dataclasses.replace(context, refusals=lambda _: answer())


def parse_target(text: str) -> tuple[str, str | None]:
    """Return the TensorRT and the compute capability in `trt10`, `rtx` or `rtx:sm86`; raises `ConfigError`."""
    version, _, sm = text.partition(":")
    if version not in EVERY_TARGET:
        hint = did_you_mean(version, EVERY_TARGET) or f"; known are {', '.join(EVERY_TARGET)}"
        raise ConfigError(f"target '{text}' is not known{hint}")
    return version, sm or None
