"""Tables for people at a terminal: figures right-aligned, names cut in the middle, nothing in a name is markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from trtq.compare.difference import Comparison
from trtq.layers.graph import Layer, LayerGraph, Signals
from trtq.report.data import ModeRow, accuracies
from trtq.report.groups import scale_group
from trtq.report.wording import (
    MISSING,
    bytes_text,
    cost_text,
    figure,
    percent,
    printable,
    scale_text,
    shorten,
)
from trtq.rules.finding import Finding

NAME_CHARACTERS = 40
COLUMN_CHARACTERS = 22
SENTENCE_CHARACTERS = 240
WHICH = ": one scale for "  # in a remedy, what its command is to mend
SIGNALS = (
    "layers", "int8_share", "conversions", "double_writes", "requantizes", "float_writes", "traffic_bytes", "time_us",
)  # fmt: skip
MODE_SIGNALS = ("layers", "int8_share", "double_writes", "float_writes", "requantizes")


def modes_table(rows: Sequence[ModeRow]) -> Table:
    """Return the modes of a recipe, one column a mode: accuracy and sizes as measured, signals with their origin.

    "20 → 0" is a signal before and after scales were unified.
    """
    table = _table([""], [row.mode for row in rows])
    table.add_column("is")
    measured = accuracies(rows)
    for metric in dict.fromkeys(metric for one in measured for metric in one):
        name = Text(shorten(printable(metric), NAME_CHARACTERS), overflow="ellipsis")
        table.add_row(name, *(percent(one.get(metric), 2) for one in measured), "measured")
    table.add_row("ONNX file", *(bytes_text(row.onnx_bytes) for row in rows), "measured")
    table.add_row("engine file", *(bytes_text(row.engine_bytes) for row in rows), "measured")
    table.add_row("built in, s", *(figure(row.build_s, 1) for row in rows), "measured")
    origins = ", ".join(dict.fromkeys(row.origin for row in rows if row.origin)) or MISSING
    for signal in MODE_SIGNALS:
        table.add_row(_spaced(signal), *(_with_naive(row, signal) for row in rows), origins)
    if any(row.predicted_conversions is not None for row in rows):
        table.add_row("conversions", *(figure(row.predicted_conversions) for row in rows), "predicted")
    return table


def signals_table(graphs: Mapping[str, LayerGraph]) -> Table:
    """Return the signals of engines, one column an engine; a dash where its origin cannot tell."""
    table = _table([""], _distinguishing(tuple(graphs)))
    table.add_row("origin", *(graph.origin for graph in graphs.values()))
    for signal in SIGNALS:
        table.add_row(_spaced(signal), *(_signal(graph.signals, signal) for graph in graphs.values()))
    return table


def conversions_table(layers: Sequence[Layer]) -> Table:
    """Return layers that only convert or copy a tensor, one row each, in execution order."""
    table = _table(["kernel", "tensor", "from → to"], ["size"])
    for layer in layers:
        [read], [written] = layer.inputs, layer.outputs
        name = shorten(printable(read.name), NAME_CHARACTERS)
        table.add_row(layer.kind, name, f"{read.dtype} → {written.dtype}", "×".join(map(str, read.dims)) or MISSING)
    return table


def differences_table(comparison: Comparison) -> Table:
    """Return what two engines do differently, in the comparison's order; cost is B minus A.

    The last rows are the layers that both run alike and the whole, so that the costs add up. Below stand remedies of
    several rows, once each, and the sentences that sum the comparison up.
    """
    table = _table(["what"], ["cost"])
    for heading in ("ONNX tensor", "remedy"):
        table.add_column(heading, overflow="fold")
    commands = Counter(one.remedy.partition(WHICH)[0] for one in comparison.differences if one.remedy)
    shared = {command: f"[{n}]" for n, command in enumerate((one for one in commands if commands[one] > 1), 1)}
    for one in comparison.differences:
        told = [one.kind, _name(one.region).plain, f"({one.label})" if one.label else ""]
        cost = cost_text(one.cost_us, one.cost_bytes)
        table.add_row(
            Text("\n".join(filter(None, told))),
            cost if one.is_shown else f"{cost}\nno difference shown",
            _name(one.cause or MISSING),
            _sentence(_remedy(one.remedy, shared) or one.message),
        )
    table.add_section()
    rest, total = comparison.unexplained_us, comparison.total_us
    table.add_row("unexplained rest", cost_text(rest, comparison.unexplained_bytes), "", "layers that both run alike")
    table.add_row("total", cost_text(total, comparison.total_bytes), "", "")
    below = [*(f"{number} {command}" for command, number in shared.items()), *comparison.notes]
    if below:
        table.caption = Text("\n".join(printable(line) for line in below), style="not dim not italic")
        table.caption_justify = "left"
    return table


def _remedy(remedy: str, shared: Mapping[str, str]) -> str:
    """Return a remedy with the number in place of a command that several rows share."""
    command, which, tensors = remedy.partition(WHICH)
    number = shared.get(command, command)
    return f"{number}{which}{tensors}"


def groups_table(groups: Iterable[Mapping[str, Any]]) -> Table:
    """Return scale groups in the form of `trtq unify --json`, one line a member; measured columns where one was."""
    rows = [scale_group(group) for group in groups]
    measured = any(group.measured_loss_db is not None for group in rows)
    headings = ["own\nscale", "coarser,\nbits", "shared\nscale", "predicted\nloss, dB"]
    table = _table(["member"], headings + ["measured\nloss, dB", "outputs'\nSQNR, dB"] * measured)
    table.add_column("joined by")
    for group in rows:
        shared = "left" if group.left else scale_text(group.scale)
        costs = [group.predicted_loss_db, *[group.measured_loss_db, group.outputs_sqnr_db] * measured]
        of_group: list[str | Text] = [shared, *(figure(cost, 2) for cost in costs), _name(group.joined_by)]
        for number, member in enumerate(group.members):
            own = (_name(member.tensor), scale_text(member.scale), figure(member.coarser_bits, 2))
            table.add_row(*own, *([""] * len(of_group) if number else of_group))
        table.add_section()
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    """Return lint findings: the rule, what is wrong (messages name the tensors), and who can mend it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("what is wrong", overflow="fold")
    table.add_column("fix", no_wrap=True)
    for finding in findings:
        mends = f"--fix\n{finding.safety}" if finding.fixable else "by hand"
        table.add_row(Text(f"{finding.code}\n{printable(finding.name)}"), Text(printable(finding.message)), mends)
    return table


def _table(names: Iterable[str], figures: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in names:
        table.add_column(Text(heading))
    for heading in figures:
        table.add_column(Text(_heading(heading)), justify="right", no_wrap=True)
    return table


def _distinguishing(paths: Sequence[str]) -> tuple[str, ...]:
    """Return what tells paths apart: without the folders that all begin with and the parts that all end with."""
    if len(paths) < 2:
        return tuple(paths)
    rows = [path.split("/") for path in paths]
    shortest = min(map(len, rows))
    start = end = 0
    while start < shortest - 1 and len({row[start] for row in rows}) == 1:
        start += 1
    while end < shortest - start - 1 and len({row[-1 - end] for row in rows}) == 1:
        end += 1
    return tuple("/".join(row[start : len(row) - end]) for row in rows)


def _heading(text: str) -> str:
    return "\n".join(shorten(printable(line), COLUMN_CHARACTERS) for line in text.split("\n")[:2])


def _name(name: str) -> Text:
    return _line(shorten(printable(name), NAME_CHARACTERS))


def _line(words: str) -> Text:
    """Return words that a narrow terminal cuts rather than wraps: their column gives way before the figures do."""
    return Text(words, no_wrap=True, overflow="ellipsis")


def _sentence(sentence: str) -> Text:
    return Text(printable(sentence, SENTENCE_CHARACTERS))


def _spaced(signal: str) -> str:
    return signal.replace("_", " ").replace("traffic bytes", "traffic").replace("time us", "time")


def _signal(signals: Signals | None, name: str) -> str:
    value = getattr(signals, name) if signals else None
    if name == "int8_share":
        return percent(value)
    if name == "traffic_bytes":
        return bytes_text(value)
    return f"{figure(value, 1)} µs" if name == "time_us" and value is not None else figure(value)


def _with_naive(row: ModeRow, name: str) -> str:
    after = _signal(row.signals, name)
    if row.naive_signals is None or name in ("layers", "int8_share") or getattr(row.naive_signals, name) is None:
        return after
    return f"{_signal(row.naive_signals, name)} → {after}"
