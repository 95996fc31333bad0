"""What can be compared: anything that a layer graph is read from or predicted for, and the ONNX file behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from trtq import files, predict, qdq
from trtq.config import Recipe, did_you_mean, load_recipe
from trtq.errors import ConfigError, ModelError
from trtq.layers import read
from trtq.layers.graph import LayerGraph

RECIPE, ONNX = ".toml", ".onnx"
# What `trtq build` and TensorRT's own tools call an engine.
PLANS = (".plan", ".engine", ".trt")
LAYERS, PREDICTED, MODEL = "layers.json", "predicted.json", "model.onnx"
RECIPE_MODES = ("fp32", "fp16", "naive", "ptq", "qat")
ONNX_MODES: dict[str, predict.Mode] = {"fp32": "fp32", "fp16": "fp16", "ptq": "ptq", "qat": "explicit"}


@dataclass(frozen=True)
class Subject:
    """One side of a comparison: its layers, how it is called, and the ONNX file that it was built from, if found."""

    name: str
    graph: LayerGraph
    onnx: Path | None = None


def subject(path: Path, mode: str | None = None) -> LayerGraph:
    """Return the layers of `resolve` alone."""
    return resolve(path, mode).graph


def resolve(path: Path, mode: str | None = None, profile: Path | None = None) -> Subject:
    """Return what `path` stands for.

    A recipe stands for one built mode of it, and a folder for a mode: both for the layers that were kept there. An
    engine stands for the layer file beside it, an ONNX file for its prediction by `mode`, "qat" where there is none.
    Any other file holds layers. profile: measured times of those layers. Raises `ConfigError` for a mode that is
    missing, not built or of no meaning here, `ModelError` for what cannot be read.
    """
    if path.suffix == RECIPE:
        return _of_recipe(load_recipe(path), path, mode, profile)
    if path.suffix == ONNX and not _is_engine(path):
        return _predicted(path, mode, profile)
    if mode is not None and mode not in ("explicit", *RECIPE_MODES):
        raise _unknown_mode(mode, RECIPE_MODES)
    if path.is_dir():
        return _of_folder(path, profile)
    if path.suffix in PLANS or (path.suffix == ONNX and _is_engine(path)):
        return _of_engine(path, profile)
    graph = read(path, profile)
    return Subject(path.name, graph, _onnx_of(graph, path.parent))


def _of_recipe(recipe: Recipe, path: Path, mode: str | None, profile: Path | None) -> Subject:
    if mode is None:
        raise ConfigError(f"{path}: is a recipe; say which of its modes, as in --mode fp16,qat")
    if mode not in RECIPE_MODES:
        raise _unknown_mode(mode, RECIPE_MODES)
    folder = recipe.folder / mode
    if not (folder / LAYERS).is_file() and not (folder / MODEL).is_file():
        asked = "ptq" if mode == "naive" else mode  # ptq is built beside the naive placement of its quantizers
        raise ConfigError(f"{path}: mode '{mode}' is not built; run `trtq build {path} --mode {asked}`")
    if (folder / LAYERS).is_file():
        return replace(_of_folder(folder, profile), name=f"{recipe.name} {mode}")
    # No back end that tells its layers: what TensorRT's rules let expect of the file.
    found = _predicted(folder / MODEL, mode if mode in ("fp32", "fp16") else "qat", profile)
    return replace(found, name=f"{recipe.name} {mode}")


def _of_folder(folder: Path, profile: Path | None) -> Subject:
    file = next((folder / name for name in (LAYERS, PREDICTED) if (folder / name).is_file()), None)
    if file is None:
        modes = [mode for mode in RECIPE_MODES if (folder / mode).is_dir()]
        hint = f"name the folder of a mode in it ({', '.join(modes)})" if modes else "name a folder that trtq built"
        raise ModelError(f"{folder}: holds no {LAYERS}; {hint}, or a layer file")
    graph = read(file, profile)
    return Subject(folder.resolve().name, graph, _onnx_of(graph, folder))


def _of_engine(plan: Path, profile: Path | None) -> Subject:
    """Return the layers of an engine, which lie beside it: an engine itself tells them to its own TensorRT alone."""
    if not plan.is_file():
        raise ModelError(f"{plan}: no such file")
    if plan.suffix == ONNX:
        graph = read(plan, profile)
        return Subject(plan.name, graph, _built_from(plan, _onnx_files(plan.parent)))
    version = _facts(plan).get("version")
    for file in _layer_files(plan):
        graph = read(file, profile)
        if file.name != LAYERS or version is None or str(version) in graph.source:
            return Subject(plan.name, graph, _onnx_of(graph, plan.parent))
    raise ModelError(
        f"{plan}: is an engine, and no file with its layers lies beside it; write one as {plan.stem}.layers.json "
        "with trtexec --exportLayerInfo, or build the engine with trtq"
    )


def _layer_files(plan: Path) -> Iterator[Path]:
    names = (LAYERS, f"{plan.stem}.{LAYERS}", f"{plan.name}.{LAYERS}", f"{plan.stem}.graph.json", f"{plan.stem}.json")
    yield from (plan.with_name(name) for name in dict.fromkeys(names) if plan.with_name(name).is_file())


def _predicted(path: Path, mode: str | None, profile: Path | None) -> Subject:
    if profile is not None:
        raise ConfigError(f"{profile}: times are of an engine's layers, and those of {path} are predicted")
    graph = predict.predict(qdq.load(path), _onnx_mode(path, mode or "qat"))
    return Subject(path.name, replace(graph, onnx_sha256=files.sha256(path)), path)


def _onnx_mode(path: Path, mode: str) -> predict.Mode:
    if mode in ONNX_MODES:
        return ONNX_MODES[mode]
    if mode in get_args(predict.Mode):
        return cast("predict.Mode", mode)
    if mode in RECIPE_MODES:
        raise ConfigError(f"mode '{mode}' is a recipe's; {path} is predicted as one of {', '.join(ONNX_MODES)}")
    raise _unknown_mode(mode, ONNX_MODES)


def _unknown_mode(mode: str, known: Iterable[str]) -> ConfigError:
    words = tuple(known)
    return ConfigError(f"mode '{mode}' is not known{did_you_mean(mode, words) or '; known are ' + ', '.join(words)}")


def _is_engine(path: Path) -> bool:
    """Tell whether an ONNX file is what ONNX Runtime was made to write: trtq keeps a manifest beside an engine."""
    return "plan_sha256" in _manifest(path)


def _facts(plan: Path) -> dict[str, object]:
    facts = _manifest(plan).get("facts")
    return facts if isinstance(facts, dict) else {}


def _manifest(plan: Path) -> dict[str, object]:
    path = plan.with_name(f"{plan.name}.json")
    document = files.read_json(path) if path.is_file() else None
    return document if isinstance(document, dict) else {}


def _onnx_of(graph: LayerGraph, folder: Path) -> Path | None:
    """Return the ONNX file that the layers are of: by its hash where they have one, else a mode's own."""
    if graph.onnx_sha256 is None:
        return folder / MODEL if (folder / MODEL).is_file() else None
    return _of_hash(graph.onnx_sha256, _onnx_files(folder))


def _built_from(plan: Path, candidates: Iterable[Path]) -> Path | None:
    sha256 = _manifest(plan).get("onnx_sha256")
    return None if sha256 is None else _of_hash(str(sha256), candidates)


def _onnx_files(folder: Path) -> Iterator[Path]:
    """Yield the ONNX files that layers in `folder` may be of, the likely ones first; without those of back ends."""
    source = folder.resolve().with_suffix(ONNX)
    first = [folder / MODEL, source]
    others = sorted(one for one in folder.glob(f"*{ONNX}") if not one.with_name(f"{one.name}.json").is_file())
    yield from (one for one in dict.fromkeys([*first, *others]) if one.is_file())


def _of_hash(sha256: str, candidates: Iterable[Path]) -> Path | None:
    return next((path for path in candidates if files.sha256(path) == sha256), None)
