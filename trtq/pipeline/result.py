"""What a recipe has built, gathered from its folder: rows for the table, data for the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from trtq import files
from trtq.compare import Comparison, compare
from trtq.config import Recipe
from trtq.errors import MissingBackendError, ModelError
from trtq.layers.graph import LayerGraph, load_layers
from trtq.pipeline.build import explicit_ptq_note
from trtq.pipeline.modes import NATIVE, NATIVE_ACCURACY, BuiltMode
from trtq.pipeline.stage import MANIFEST, facts, read_manifest
from trtq.report.data import ModeRow, NamedGraph, ReportData
from trtq.report.html import html
from trtq.report.svg import svg

REPORT = "report.html"
# Pairs worth looking at side by side: what unifying changed, and what training changed.
COMPARED: tuple[tuple[BuiltMode, BuiltMode], ...] = (("naive", "ptq"), ("ptq", "qat"))
HEADLINE = {"map50_95": "mAP50-95", "top1": "top-1"}


def write_report(recipe: Recipe, target: Path | None = None) -> tuple[Path, tuple[str, ...]]:
    """Write the report of everything the recipe has built, and a picture per mode; return its path and notes.

    Raises `ModelError` when nothing has been built, `OutputError` when it cannot be written.
    """
    page = target or recipe.folder / REPORT
    graphs, notes = _graphs(recipe)
    rows = result_rows(recipe)
    document = ReportData(
        recipe=recipe.name,
        task="detection" if any("map50" in row.accuracy for row in rows) else "classification",
        verdict=tuple(_verdict(rows)),
        modes=rows,
        graphs=graphs,
        comparisons=tuple(_comparisons(recipe, graphs)),
        groups=tuple(_groups(recipe)),
        manifest={mode: read_manifest(recipe.folder / mode) for mode in built_modes(recipe)},
        notes=tuple(filter(None, (explicit_ptq_note(recipe, built_modes(recipe)), *notes))),
    )
    files.write_text(page, html(document))
    for graph in graphs:
        if graph.svg is not None:
            files.write_text(recipe.folder / f"{graph.mode}.svg", graph.svg)
    return page, notes


def built_modes(recipe: Recipe) -> tuple[BuiltMode, ...]:
    """Return the modes that the recipe's folder holds, in their usual order."""
    return tuple(mode for mode in get_args(BuiltMode) if (recipe.folder / mode / MANIFEST).is_file())


def result_rows(recipe: Recipe) -> tuple[ModeRow, ...]:
    """Return a row per built mode; raises `ModelError` when nothing has been built."""
    modes = built_modes(recipe)
    if not modes:
        raise ModelError(f"{recipe.folder}: holds nothing yet; run `trtq build {recipe.path.name}` first")
    naive = _layers(recipe, "naive")
    return tuple(_row(recipe, mode, naive) for mode in modes)


def _row(recipe: Recipe, mode: BuiltMode, naive: LayerGraph | None) -> ModeRow:
    folder = recipe.folder / mode
    graph = _layers(recipe, mode)
    engine = facts(folder, "build-rtx") or facts(folder, "build-ort") or facts(folder, f"build-{NATIVE}")
    return ModeRow(
        mode=mode,
        accuracy=_accuracy(folder / "accuracy.json"),
        native_accuracy=_accuracy(folder / NATIVE_ACCURACY),
        onnx_bytes=_size(folder / "model.onnx"),
        engine_bytes=engine.get("plan_bytes"),
        signals=None if graph is None else graph.signals,
        naive_signals=naive.signals if naive is not None and mode in ("ptq", "qat") else None,
        origin=None if graph is None else graph.origin,
        predicted_conversions=facts(folder, "predict").get("conversions"),
        build_s=engine.get("build_s"),
        finetune=facts(folder, "finetune"),
    )


def _accuracy(path: Path) -> Mapping[str, float]:
    measured = files.read_json(path) if path.is_file() else {}
    return {name: value for name, value in measured.items() if name != "images"}


def _layers(recipe: Recipe, mode: BuiltMode) -> LayerGraph | None:
    path = recipe.folder / mode / "layers.json"
    return load_layers(path) if path.is_file() else None


def _graphs(recipe: Recipe) -> tuple[tuple[NamedGraph, ...], tuple[str, ...]]:
    found = [(mode, graph) for mode in built_modes(recipe) if (graph := _layers(recipe, mode)) is not None]
    try:
        return tuple(NamedGraph(mode, graph, svg(graph, f"{recipe.name} {mode}")) for mode, graph in found), ()
    except MissingBackendError as error:
        return tuple(NamedGraph(mode, graph, None) for mode, graph in found), (str(error),)


def _comparisons(recipe: Recipe, graphs: tuple[NamedGraph, ...]) -> Iterator[Comparison]:
    by_mode = {one.mode: one.graph for one in graphs}
    for a, b in COMPARED:
        if a in by_mode and b in by_mode:
            onnx_a, onnx_b = (recipe.folder / mode / "model.onnx" for mode in (a, b))
            yield compare(by_mode[a], by_mode[b], a, b, onnx_a=onnx_a, onnx_b=onnx_b)


def _groups(recipe: Recipe) -> Iterator[Mapping[str, Any]]:
    """Yield the scale groups as the naive placement had them, which is what unifying them had to bridge."""
    path = recipe.folder / "naive" / "groups.json"
    if path.is_file():
        yield from files.read_json(path)["groups"]


def _verdict(rows: tuple[ModeRow, ...]) -> Iterator[str]:
    by_mode = {row.mode: row for row in rows}
    yield from _accuracy_verdict(by_mode)
    best = by_mode.get("qat") or by_mode.get("ptq")
    if best is not None and best.signals is not None and best.naive_signals is not None:
        before, after = best.naive_signals, best.signals
        line = f"One scale a group: tensors written twice {before.double_writes} → {after.double_writes}, "
        line += f"float tensors written {before.float_writes} → {after.float_writes}"
        if before.traffic_bytes and after.traffic_bytes:
            line += f", activation traffic {100 * (after.traffic_bytes / before.traffic_bytes - 1):+.1f} %"
        yield line + f" ({best.origin}, against the same quantizers untied)."
    if best is not None and best.onnx_bytes and "fp32" in by_mode and by_mode["fp32"].onnx_bytes:
        smaller = by_mode["fp32"].onnx_bytes / best.onnx_bytes
        yield f"The {best.mode} ONNX file is {smaller:.1f} times smaller than fp32's."


def _accuracy_verdict(by_mode: Mapping[str, ModeRow]) -> Iterator[str]:
    metric = next((name for name in HEADLINE if name in by_mode["fp32"].accuracy), None) if "fp32" in by_mode else None
    if metric is None:
        return
    float_accuracy = by_mode["fp32"].accuracy[metric]
    parts = [f"float {100 * float_accuracy:.2f}"]
    for mode in ("ptq", "qat"):
        if mode in by_mode and metric in by_mode[mode].accuracy:
            value = by_mode[mode].accuracy[metric]
            parts.append(f"{mode.upper()} {100 * value:.2f} ({100 * (value - float_accuracy):+.2f} points)")
    yield f"{HEADLINE[metric]}: {', '.join(parts)}; measured with ONNX Runtime on the exported files."


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
