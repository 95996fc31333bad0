"""ReportData: accuracy under the name of the form that it was measured on."""

from __future__ import annotations

from trtq.report.data import ModeRow, accuracies


def test_without_a_native_form_a_metric_has_its_own_name() -> None:
    rows = (ModeRow("fp32", {"top1": 0.9}), ModeRow("ptq", {"top1": 0.8}))
    assert accuracies(rows) == ({"top1": 0.9}, {"top1": 0.8})


def test_with_a_native_form_every_figure_says_which_form_it_is_of() -> None:
    rows = (ModeRow("fp32", {"top1": 0.9}), ModeRow("ptq", {"top1": 0.8}, native_accuracy={"top1": 0.7}))
    assert accuracies(rows) == ({"top1, as exported": 0.9}, {"top1, as exported": 0.8, "top1, native": 0.7})
