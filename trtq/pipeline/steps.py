"""The stages between ONNX and report, each one function: file in, file out, facts for the manifest back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trtq import backends, data, evaluate, files, predict, qdq, rules
from trtq.backends import Session
from trtq.config import Recipe
from trtq.errors import ModelError

ACCURACY_RUNNER = "ort"
METADATA_PREFIX = "trtq."


def to_fp16(source: Path, target: Path, *, per_tensor_weights: bool = False) -> dict[str, Any]:
    """Cast the float part of a network to FP16, its inputs and outputs aside; raises `ModelError`, `OutputError`."""
    casting = qdq.fp16_file(source, target, per_tensor_weights=per_tensor_weights)
    return {"onnx_bytes": target.stat().st_size, **casting.to_json()}


def scale_groups(source: Path, report: Path) -> dict[str, Any]:
    """Write the scale groups of a file and what one scale each would cost, without changing it; raises `ModelError`."""
    result = qdq.unify(qdq.load(source))
    files.write_json(report, result.to_json())
    return {"groups": len(result.groups), "differing": sum(not one.group.agrees for one in result.groups)}


def unify(source: Path, target: Path, report: Path) -> dict[str, Any]:
    """Give each scale group one scale and write the report beside it; raises `ModelError`, `OutputError`."""
    result = qdq.unify_file(source, target)
    files.write_json(report, result.to_json())
    return {"groups": len(result.groups), "edits": len(result.edits)}


def lint(source: Path, target: Path, report: Path) -> dict[str, Any]:
    """Mend what the rules can mend and write what they found and what remains; raises `ModelError`, `OutputError`."""
    model = qdq.load(source)
    findings = rules.lint(model)
    mended = rules.mend(model)
    if mended:
        qdq.save(model, target)
    else:
        files.write_bytes(target, source.read_bytes())
    remaining = rules.lint(model) if mended else findings
    files.write_json(
        report, {"findings": [one.to_json() for one in findings], "remaining": [one.to_json() for one in remaining]}
    )
    return {"findings": len(findings), "mended": mended, "remaining": len(remaining)}


def predict_fusion(source: Path, target: Path) -> dict[str, Any]:
    """Predict what classic TensorRT fuses and write the layer graph; raises `ModelError`, `OutputError`."""
    graph = predict.predict(qdq.load(source), "explicit")
    graph.save(target)
    return {"conversions": graph.signals.conversions}


def accuracy(
    recipe: Recipe,
    source: Path,
    target: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    runner: str = ACCURACY_RUNNER,
) -> dict[str, Any]:
    """Measure the accuracy of an ONNX file on the recipe's validation images with ONNX Runtime; write it to `target`.

    runner: the back end that runs it: "ort" computes Q/DQ as exported, "ort-native" with integer kernels. The file
    itself says how its outputs are decoded (metadata `trtq.decode`). Raises `ModelError`, `DataError`.
    """
    model = qdq.load(source)
    decode = model.metadata_props.get(f"{METADATA_PREFIX}decode")
    session = backends.runner(runner).load(source, threads=recipe.threads)
    batch = session.inputs[0].dims[0]
    result: dict[str, Any] = dict(
        evaluate.evaluate(
            _run(session),
            data.load(recipe.data, "validation", recipe.seed, recipe.path.parent),
            batch=batch if batch > 0 else recipe.data.batch,
            decode=None if decode is None else _decode_spec(source, decode),
            progress=progress,
        )
    )
    if target is not None:
        files.write_json(target, result)
    return result


def _run(session: Session) -> Callable[[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    name = session.inputs[0].name

    def run(images: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        outputs = session.run({name: np.ascontiguousarray(images)})
        return [outputs[spec.name] for spec in session.outputs]

    return run


def _decode_spec(source: Path, text: str) -> Mapping[str, Any]:
    try:
        spec = json.loads(text)
    except ValueError:
        spec = None
    if not isinstance(spec, dict):
        raise ModelError(f"{source}: its metadata '{METADATA_PREFIX}decode' is not a decode spec; export it again")
    return spec
