"""An engine: preflight, the builder in its child process, the layer graph, and the manifest beside the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trtq import backends, files
from trtq.backends import BuildOptions, BuildSpec, ShapeRange, manifest, onnx_file
from trtq.backends.manifest import Identity
from trtq.backends.onnx_file import Source
from trtq.config import Recipe
from trtq.errors import BuildError
from trtq.machine import Machine, machine
from trtq.pipeline import preflight
from trtq.pipeline.preflight import Passed
from trtq.rules import Finding

LAYERS_NAME = "layers.json"
INPUT = "images"  # of every network that a recipe exports


def engine_options(recipe: Recipe) -> BuildOptions:
    """Return how a recipe wants its engines built, where a back end has such options."""
    engine = recipe.engine
    return BuildOptions(
        profiles=_profiles(recipe),
        workspace_mib=engine.workspace_mib,
        level=engine.level,
        timing_cache=None if engine.timing_cache is None else recipe.path.parent / engine.timing_cache,
        dla_core=engine.dla_core,
        strongly_typed=engine.strongly_typed,
        timeout_s=engine.timeout_s,
        memory_limit_mib=engine.memory_limit_mib,
    )


def _profiles(recipe: Recipe) -> tuple[tuple[ShapeRange, ...], ...]:
    """Return the one optimization profile of a dynamic batch, or none."""
    engine = recipe.engine
    if not engine.dynamic_batch:
        return ()
    image = (3, recipe.data.image_size, recipe.data.image_size)
    smallest, largest = engine.dynamic_batch
    return ((ShapeRange(INPUT, (smallest, *image), (engine.batch, *image), (largest, *image)),),)


def options_json(options: BuildOptions) -> dict[str, Any]:
    """Return the options that decide an engine's bytes, as JSON takes them."""
    kept = {name: value for name, value in asdict(options).items() if name not in manifest.LIMITS}
    return {**kept, "timing_cache": None if options.timing_cache is None else str(options.timing_cache)}


def identify(
    builder: backends.Builder,
    spec: BuildSpec,
    *,
    recipe: Path | None = None,
    here: Machine | None = None,
    source: Source | None = None,
) -> Identity:
    """Return what decides the bytes of what `builder` makes of `spec`; raises `ModelError`, `MissingBackendError`.

    source: the spec's file, where it has been read already.
    """
    gpu = None
    if not builder.BUILDS_WITHOUT_GPU:
        gpus = (here or machine(ask_driver=True)).gpus
        gpu = gpus[0] if gpus else None
    device = gpu.name if gpu else None
    found = manifest.identify(spec, builder.NAME, builder.version(), device=device, recipe=recipe, source=source)
    if gpu is None or gpu.sm is None:
        return found
    return Identity(**{**vars(found), "targets": (gpu.sm,)})


def build_engine(
    builder: backends.Builder,
    spec: BuildSpec,
    folder: Path,
    *,
    identity: Identity | None = None,
    findings: Sequence[Finding] | None = None,
    recipe: Path | None = None,
    progress: backends.Progress | None = None,
) -> dict[str, Any]:
    """Build `spec` into `folder`, with its layer graph where the back end tells one and its manifest; return its facts.

    The manifest comes last: without it, or with one of other bytes, an engine is not finished. identity: of the build,
    where it is of other files than `spec` names. findings: of preflight, where it has been asked already. Raises what
    preflight and the builder raise.
    """
    if identity is None or findings is None:
        identity, passed = _looked_at(builder, spec, identity, recipe)
        spec, findings = passed.spec, passed.findings
    plan = folder / builder.PLAN_NAME
    try:
        engine = builder.build(spec, plan, progress=progress)
    except BuildError as error:
        raise preflight.explained(error, findings) from error
    if engine.layers is not None:
        engine.layers.save(folder / LAYERS_NAME)
    facts = {
        "backend": engine.backend,
        "version": engine.version,
        "targets": list(engine.targets),
        "plan": engine.plan.name,
        "plan_bytes": engine.plan_bytes,
        "build_s": round(engine.build_s, 3),
        "peak_memory_mib": engine.peak_memory_mib,
    }
    notes = [
        *engine.notes,
        *(f"{one.message} [{one.code} {one.name}]" for one in findings if one.code in preflight.NOTED),
    ]
    manifest.write(identity, engine, spec, machine(), {**facts, "notes": notes})
    return {**facts, "notes": notes}


def _looked_at(
    builder: backends.Builder, spec: BuildSpec, identity: Identity | None, recipe: Path | None
) -> tuple[Identity, Passed]:
    """Return the build's identity and what preflight says, from one reading of the file."""
    source = onnx_file.read(spec.onnx)
    identity = identity or identify(builder, spec, recipe=recipe, source=source)
    return identity, preflight.check(spec, builder.NAME, builder.version(), source)


def sweep(builder: backends.Builder, folder: Path) -> None:
    """Remove what a killed build of this builder left half-written in `folder`; its lock must be held."""
    plan = folder / builder.PLAN_NAME
    for path in (plan, manifest.path_of(plan), plan.with_name(plan.name + ".log"), folder / LAYERS_NAME):
        files.sweep(path)
