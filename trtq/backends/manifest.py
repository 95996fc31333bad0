"""The manifest beside each engine, `<plan>.json`: what it was built from, by what and for what; loaders read it first.

It travels with the plan. A recipe's own `manifest.json`, one a mode, is another thing: it says which stage is stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trtq import __version__, files
from trtq.backends import BuildSpec, Engine, onnx_file
from trtq.backends.onnx_file import Source
from trtq.config import Mode
from trtq.errors import ModelError
from trtq.machine import Gpu, Machine

# Limits decide whether a build ends, not what comes out.
LIMITS = ("timeout_s", "memory_limit_mib")


@dataclass(frozen=True)
class Identity:
    """What decides an engine's bytes: equal identities give the same engine.

    version: the vendor's. targets: the compute capabilities that it runs on. device: the GPU that it was tuned on, None
    where it was built ahead of time. inputs: SHA-256 by role: "onnx", "onnx:FILE" for external data, "calibration",
    "recipe". options: everything else that was asked for.
    """

    backend: str
    version: str
    mode: Mode | None
    targets: tuple[str, ...]
    device: str | None
    inputs: Mapping[str, str]
    options: Mapping[str, Any]
    trtq: str = __version__


@dataclass(frozen=True)
class Manifest:
    """An engine's identity, and what its build was like; `onnx_sha256` is of the file that the builder read."""

    identity: Identity
    onnx_sha256: str
    plan_bytes: int
    plan_sha256: str
    build_s: float
    peak_memory_mib: float | None
    cuda: str | None = None
    driver: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def path_of(plan: Path) -> Path:
    """Return where the manifest of a plan is kept."""
    return plan.with_name(plan.name + ".json")


def identify(
    spec: BuildSpec,
    backend: str,
    version: str,
    *,
    device: str | None = None,
    recipe: Path | None = None,
    source: Source | None = None,
) -> Identity:
    """Return the identity of what `spec` builds; raises `ModelError` where an input cannot be read.

    source: the spec's file, where it has been read already.
    """
    options = {name: value for name, value in asdict(spec.options).items() if name not in LIMITS}
    options["timing_cache"] = None if spec.options.timing_cache is None else str(spec.options.timing_cache)
    calibration = spec.calibration_cache or spec.calibration_batches
    inputs = _hashes(source or onnx_file.read(spec.onnx))
    if calibration is not None:
        inputs["calibration"] = hash_of(calibration)
    if recipe is not None:
        inputs["recipe"] = files.sha256(recipe)
    return Identity(backend, version, spec.mode, spec.targets, device, inputs, options)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files by name and content; raises `ModelError`."""
    if not path.is_dir():
        return files.sha256(path)
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            digest.update(f"{one.relative_to(path)}\0{files.sha256(one)}\n".encode())
    return digest.hexdigest()


def write(identity: Identity, engine: Engine, spec: BuildSpec, machine: Machine, facts: Mapping[str, Any]) -> Manifest:
    """Write the manifest of a plan that has just been built from `spec`, atomically; raises `OutputError`."""
    manifest = Manifest(
        identity=identity,
        onnx_sha256=onnx_file.sha256_of(spec),
        plan_bytes=engine.plan_bytes,
        plan_sha256=files.sha256(engine.plan),
        build_s=round(engine.build_s, 3),
        peak_memory_mib=engine.peak_memory_mib,
        cuda=machine.cuda,
        driver=machine.driver,
        facts=dict(facts),
    )
    files.write_json(path_of(engine.plan), asdict(manifest))
    return manifest


def read(plan: Path) -> Manifest:
    """Return the manifest beside a plan; raises `ModelError` where it is missing or damaged."""
    path = path_of(plan)
    if not path.is_file():
        raise ModelError(
            f"{plan}: has no manifest ({path.name}) beside it, so nothing says what it was built for; build it again"
        )
    document = files.read_json(path)
    try:
        own = dict(document["identity"])
        identity = Identity(**{**own, "targets": tuple(own["targets"])})
        return Manifest(**{**document, "identity": identity})
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: is damaged, or of another trtq; build the engine again") from error


def is_current(plan: Path, identity: Identity) -> bool:
    """Tell whether `plan` is the whole engine of that identity, by its manifest and its bytes."""
    try:
        manifest = read(plan)
    except ModelError:
        return False
    # Through JSON, as the one read was: tuples inside options become lists.
    return _plain(manifest.identity) == _plain(identity) and _is_whole(plan, manifest)


def check_loadable(plan: Path, machine: Machine, *, backend: str, version: str) -> Manifest:
    """Return the manifest of an engine that may be loaded here, before a vendor's library sees the plan.

    machine: with GPUs asked for their SM (`machine(ask_driver=True)`); the first is the one that runs engines.
    version: of the back end here. Raises `ModelError` with one sentence where the plan has no manifest, is not the file
    that was built, or is foreign: of another back end, version, SM or device.
    """
    if not plan.is_file():
        raise ModelError(f"{plan}: no such engine; build it first")
    manifest = read(plan)
    if not _is_whole(plan, manifest):
        raise ModelError(f"{plan}: is not the file that its manifest describes; build it again")
    identity = manifest.identity
    if identity.backend != backend:
        raise ModelError(f"{plan}: is an engine of '{identity.backend}', not of '{backend}'; load it with that")
    if identity.version != version:
        raise ModelError(f"{plan}: was built by version {identity.version} and {version} is here; build it again here")
    if identity.targets:
        _check_gpu(plan, identity, machine.gpus[0] if machine.gpus else None)
    return manifest


def _hashes(source: Source) -> dict[str, str]:
    """Return the SHA-256 of an ONNX file and of each of its external data files; raises `ModelError`."""
    hashes, folder = {"onnx": source.sha256}, source.path.resolve().parent
    for file in onnx_file.external_files(source.network, source.path):
        hashes[f"onnx:{file.relative_to(folder)}"] = files.sha256(file)
    return hashes


def _check_gpu(plan: Path, identity: Identity, gpu: Gpu | None) -> None:
    built_for = " and ".join(identity.targets)
    if gpu is None:
        raise ModelError(f"{plan}: was built for {built_for}, and this machine shows no GPU; run it where there is one")
    if gpu.sm is not None and gpu.sm not in identity.targets:
        raise ModelError(f"{plan}: was built for {built_for}, and {gpu.name} is {gpu.sm}; build it for {gpu.sm}")
    if identity.device is not None and identity.device != gpu.name:
        raise ModelError(f"{plan}: was built on {identity.device}, and this is {gpu.name}; build it again here")


def _is_whole(plan: Path, manifest: Manifest) -> bool:
    return plan.is_file() and plan.stat().st_size == manifest.plan_bytes and files.sha256(plan) == manifest.plan_sha256


def _plain(value: Any) -> Any:
    if isinstance(value, Identity):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
