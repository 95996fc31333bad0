from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from trtq.compare.difference import Comparison, Difference
from trtq.layers.graph import LayerGraph, Signals
from trtq.report.data import ModeRow
from trtq.report.text import differences_table, findings_table, groups_table, modes_table, signals_table
from trtq.rules.finding import Finding

NAIVE = Signals(135, None, 20, 3, 81, 48_320_000, 1.0, None)
UNIFIED = Signals(133, None, 0, 0, 63, 39_104_000, 1.0, None)


def printed(table: Table, width: int = 100) -> str:
    stream = StringIO()
    Console(file=stream, width=width, force_terminal=True, color_system=None).print(table)
    return stream.getvalue()


def cells(table: Table, row: str, width: int = 100) -> list[str]:
    line = next(line for line in printed(table, width).splitlines() if line.strip().startswith(row))
    return line.strip().removeprefix(row).split()


def test_modes_say_what_is_measured_and_what_is_compiled() -> None:
    rows = [
        ModeRow("fp16", {"mAP50": 0.9712}, 2_000_000, None, None),
        ModeRow("qat", {"mAP50": 0.9722}, 2_813_333, 2_888_036, UNIFIED, NAIVE, "compiled", 3, 98.4),
    ]
    table = modes_table(rows)
    assert cells(table, "mAP50") == ["97.12", "%", "97.22", "%", "measured"]
    assert cells(table, "engine file") == ["–", "2.89", "MB", "measured"]
    assert cells(table, "double writes") == ["–", "20", "→", "0", "compiled"]
    assert cells(table, "float writes") == ["–", "81", "→", "63", "compiled"]
    assert cells(table, "conversions") == ["–", "3", "predicted"]
    assert cells(table, "int8 share") == ["–", "100", "%", "compiled"]


def test_signals_that_an_origin_cannot_tell_are_dashes() -> None:
    table = signals_table({"qat": LayerGraph("compiled", "", (), UNIFIED)})
    assert cells(table, "conversions") == ["–"]
    assert cells(table, "traffic") == ["39.1", "MB"]
    assert cells(table, "origin") == ["compiled"]


def test_engines_are_told_apart_by_what_differs_in_their_paths() -> None:
    graph = LayerGraph("compiled", "", (), UNIFIED)
    folder = "/home/somebody/projects/detector/engines/yolov7-tiny-digits"
    table = signals_table({f"{folder}/{mode}/layers.json": graph for mode in ("ptq", "qat")})
    assert printed(table).splitlines()[1].split() == ["ptq", "qat"]
    assert "…" in printed(signals_table({f"{folder}/qat/layers.json": graph}))


@pytest.mark.parametrize("width", [80, 160])
def test_names_are_cut_in_the_middle_and_figures_never(width: int) -> None:
    name = "/model/" + "very/deep/" * 30 + "Concat_output_0"
    group = {
        "tensors": [name, "b"], "joined_by": ["Concat " + name], "scales": [0.06551, 0.04522], "scale": 0.06551,
        "coarser_bits": [0.0, 0.5348], "predicted_loss_db": 3.217, "measured_loss_db": None, "left": False,
    }  # fmt: skip
    text = printed(groups_table([group]), width)
    for figure in ("0.06551", "0.04522", "0.53", "3.22"):
        assert figure in text
    assert "…" in text
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) < 10


def test_names_are_never_markup(hostile: LayerGraph) -> None:
    for name in (layer.name for layer in hostile.layers):
        finding = Finding("TQ101", "concat-scales-differ", (name, "b"), (), name, "numeric", True)
        difference = Difference("double write", (name,), (name,), (), None, -2_000, name, name, name)
        shown = printed(findings_table([finding])) + printed(
            differences_table(Comparison(name, "b", 1.0, (difference,), None, None))
        )
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert shown.isprintable() or all(line.isprintable() for line in shown.split("\n"))
    markup = Finding("TQ101", "[bold red]markup[/]", ("a",), (), "[/nosuch] [red]", "numeric", False)
    assert "[bold red]markup[/]" in printed(findings_table([markup]))
    assert "[/nosuch] [red]" in printed(findings_table([markup]))


def test_a_cost_carries_its_sign_and_unit() -> None:
    rows = (
        Difference("double write", (), (), (), None, -205_000, "", "tensor_a"),
        Difference("fusion", (), (), (), 12.34, 5_000, "", "tensor_b"),
        Difference("only in b", (), (), (), None, None, "", "tensor_c"),
    )
    text = printed(differences_table(Comparison("a", "b", 1.0, rows, None, None)))
    assert "−205 kB" in text
    assert "+12.3 µs" in text


def test_differences_add_up_to_a_total_below_them() -> None:
    """A remedy of several rows stands once, below; a cost within the profiles' step is called so."""
    rows = tuple(
        Difference("extra conversion", (), (), (), cost, None, "", "t", remedy, region=f"layer{n}", is_shown=shown)
        for n, (cost, remedy, shown) in enumerate(((-30.0, "mend", True), (-20.5, "mend", True), (1.0, "other", False)))
    )
    comparison = Comparison("a", "b", 1.0, rows, -50.0, -0.5, notes=("sums up",))
    lines = printed(differences_table(comparison)).splitlines()
    assert [line for line in lines if "unexplained rest" in line and "−0.5 µs" in line]
    assert [line for line in lines if line.strip().startswith("total") and "−50.0 µs" in line]
    assert sum("no difference shown" in line for line in lines) == 1
    assert sum("mend" in line for line in lines) == 1
    assert sum("[1]" in line for line in lines) == 3
    assert "sums up" in lines[-1]
