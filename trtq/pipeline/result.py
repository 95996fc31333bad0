"""What a recipe has built, gathered from its folder: rows for the table, data for the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from trtq import files
from trtq.compare import Comparison, align, compare
from trtq.config import Recipe
from trtq.errors import MissingBackendError, ModelError
from trtq.layers.graph import LayerGraph, Signals, load_layers
from trtq.pipeline.benches import benches
from trtq.pipeline.build import explicit_ptq_note
from trtq.pipeline.modes import NATIVE, NATIVE_ACCURACY, BuiltMode
from trtq.pipeline.ranges import calibrated_ranges
from trtq.pipeline.stage import MANIFEST, facts, read_manifest
from trtq.pipeline.verdict import verdict
from trtq.report.data import Match, ModeRow, NamedGraph, ReportData
from trtq.report.html import html
from trtq.report.svg import svg

REPORT = "report.html"
# Pairs worth looking at side by side: what unifying changed, and what training changed.
COMPARED: tuple[tuple[BuiltMode, BuiltMode], ...] = (("naive", "ptq"), ("ptq", "qat"))
# The layers of a mode: its engine's, else what TensorRT's rules let expect of its ONNX file.
LAYER_FILES = ("layers.json", "predicted.json")
# Whose engine's size and build time are shown, where a mode has several.
ENGINES = ("trt", "trtexec", "rtx", "ort", NATIVE)


def write_report(recipe: Recipe, target: Path | None = None) -> tuple[Path, tuple[str, ...]]:
    """Write the report of everything the recipe has built, and a picture per mode; return its path and notes.

    Raises `ModelError` when nothing has been built, `OutputError` when it cannot be written.
    """
    page = target or recipe.folder / REPORT
    rows, modes = result_rows(recipe), built_modes(recipe)
    graphs, notes = _graphs(recipe)
    measured = benches(recipe, modes)
    comparisons = tuple(_comparisons(recipe, graphs))
    document = ReportData(
        recipe=recipe.name,
        task="detection" if any("map50" in row.accuracy for row in rows) else "classification",
        verdict=verdict(rows, comparisons, measured),
        modes=rows,
        graphs=graphs,
        comparisons=comparisons,
        matches=tuple(Match(a.mode, b.mode, align(a.graph, b.graph).groups) for a, b in combinations(graphs, 2)),
        benches=measured,
        groups=tuple(_groups(recipe)),
        ranges=calibrated_ranges({mode: recipe.folder / mode / "model.onnx" for mode in modes}),
        manifest={mode: read_manifest(recipe.folder / mode) for mode in modes},
        notes=tuple(filter(None, (explicit_ptq_note(recipe, modes), *notes))),
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
    engine = next(filter(None, (_engine(folder, name) for name in ENGINES)), {})
    return ModeRow(
        mode=mode,
        accuracy=_accuracy(folder / "accuracy.json"),
        native_accuracy=_accuracy(folder / NATIVE_ACCURACY),
        onnx_bytes=_size(folder / "model.onnx"),
        engine_bytes=engine.get("plan_bytes"),
        signals=None if graph is None else graph.signals,
        naive_signals=_before(mode, graph, naive),
        origin=None if graph is None else graph.origin,
        predicted_conversions=facts(folder, "predict").get("conversions"),
        build_s=engine.get("build_s"),
        finetune=facts(folder, "finetune"),
    )


def _engine(folder: Path, backend: str) -> dict[str, Any]:
    """Return the facts of a back end's engine: of a recipe's stage, or built into the folder by itself."""
    manifests = (folder / f"engine.{backend}.{kind}.json" for kind in ("plan", "onnx"))
    path = next((one for one in manifests if one.is_file()), None)
    return facts(folder, f"build-{backend}") or ({} if path is None else dict(files.read_json(path).get("facts", {})))


def _before(mode: BuiltMode, graph: LayerGraph | None, naive: LayerGraph | None) -> Signals | None:
    """Return the signals before scales were unified, where both rest on the same kind of knowledge."""
    if mode not in ("ptq", "qat") or graph is None or naive is None or graph.origin != naive.origin:
        return None
    return naive.signals


def _accuracy(path: Path) -> Mapping[str, float]:
    measured = files.read_json(path) if path.is_file() else {}
    return {name: value for name, value in measured.items() if name != "images"}


def _layers(recipe: Recipe, mode: BuiltMode) -> LayerGraph | None:
    paths = (recipe.folder / mode / name for name in LAYER_FILES)
    return next((load_layers(path) for path in paths if path.is_file()), None)


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
            yield _portable(compare(by_mode[a], by_mode[b], a, b, onnx_a=onnx_a, onnx_b=onnx_b), recipe.path.parent)


def _portable(comparison: Comparison, folder: Path) -> Comparison:
    """Return the comparison with files named as from the recipe's folder: where it lies is nobody else's affair."""
    here = f"{folder}{os.sep}"
    return replace(
        comparison,
        differences=tuple(
            replace(
                one,
                remedy=one.remedy.replace(here, ""),
                parts=tuple(replace(part, remedy=part.remedy.replace(here, "")) for part in one.parts),
            )
            for one in comparison.differences
        ),
    )


def _groups(recipe: Recipe) -> Iterator[Mapping[str, Any]]:
    """Yield the scale groups as the naive placement had them, which is what unifying them had to bridge."""
    path = recipe.folder / "naive" / "groups.json"
    if path.is_file():
        yield from files.read_json(path)["groups"]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
