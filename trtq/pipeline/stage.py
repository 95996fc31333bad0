"""A stage: what it reads, what it writes, and whether that is up to date; the manifest remembers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from trtq import __version__, files
from trtq.errors import ModelError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Stage:
    """One step of a mode: `run` reads `inputs` and writes `outputs`, and returns facts for the manifest.

    options: everything else that decides the outputs. packages: the packages whose versions do.
    """

    name: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    run: Callable[[], Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()


def is_fresh(folder: Path, stage: Stage) -> bool:
    """Tell whether outputs are up to date: input bytes, options, versions and output bytes are those recorded."""
    record = read_manifest(folder)["stages"].get(stage.name, {})
    return bool(record.get("key") == _key(folder, stage) and record.get("outputs") == _hashes(folder, stage.outputs))


def run_stage(folder: Path, stage: Stage, about: Mapping[str, Any]) -> None:
    """Run `stage` and record it in the folder's manifest, with `about` beside it.

    The manifest is written after the outputs, so a killed run repeats at most the stage that it was in; what it left
    half-written is removed first. The folder's lock must be held.
    """
    started = time.monotonic()
    for output in stage.outputs:
        files.sweep(output)
    facts = stage.run()
    manifest = {**read_manifest(folder), **about}
    manifest["stages"][stage.name] = {
        "key": _key(folder, stage),
        "options": dict(stage.options),
        "versions": _versions(stage),
        "inputs": _hashes(folder, stage.inputs),
        "outputs": _hashes(folder, stage.outputs),
        "facts": dict(facts),
        "seconds": round(time.monotonic() - started, 3),
    }
    files.write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the folder's manifest, or an empty one; raises `ModelError` when it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return {"stages": {}}
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
        raise ModelError(f"{path}: is damaged; delete it, and the mode is built again")
    return manifest


def facts(folder: Path, stage: str) -> dict[str, Any]:
    """Return what `stage` recorded about itself, or nothing where it has not run."""
    found = read_manifest(folder)["stages"].get(stage, {}).get("facts", {})
    return found if isinstance(found, dict) else {}


def _key(folder: Path, stage: Stage) -> str:
    identity = [stage.name, dict(stage.options), _versions(stage), _hashes(folder, stage.inputs)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _hashes(folder: Path, paths: tuple[Path, ...]) -> dict[str, str | None]:
    """Return hashes by file name, relative to `folder` where possible, so that a moved checkout stays up to date."""
    return {_name(folder, path): files.sha256(path) if path.is_file() else None for path in paths}


def _name(folder: Path, path: Path) -> str:
    root = folder.parent.parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _versions(stage: Stage) -> dict[str, str]:
    return {"trtq": __version__, **{package: _version(package) for package in stage.packages}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
