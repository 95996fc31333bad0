"""Preflight: what the lint rules hold against a file before a builder sees it; builders accept or die of some of it.

A back end cannot import the rules, so the pipeline asks them, and adds to a builder's error the finding that explains
it. TensorRT and TensorRT-RTX read uint8 as int8, run what has several scales in float and crash on a computed scale,
all without a word; ONNX Runtime computes what the file says, so nothing is held against a file for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from trtq import rules
from trtq.backends import BuildSpec, onnx_file
from trtq.backends.onnx_file import Source
from trtq.errors import BuildError, ModelError
from trtq.qdq.model import from_proto
from trtq.rules import Context, Finding

# Each of these makes an engine that computes something else than the file says, or crashes the builder.
REFUSED = ("TQ301", "TQ302", "TQ303", "TQ304", "TQ306", "TQ307", "TQ309", "TQ310", "TQ311", "TQ403")
# These build, or fail with a message that does not name the cause.
EXPLAINING = ("TQ105", "TQ305", "TQ308", "TQ401", "TQ404", "TQ405")
# What of these the user should know even where the build succeeds.
NOTED = ("TQ404",)
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
WIDE = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
LENIENT = ("ort", "ort-native")


@dataclass(frozen=True)
class Passed:
    """What a back end may build: `spec` with what is known of its file, and what may explain a failure of the build."""

    spec: BuildSpec
    findings: tuple[Finding, ...]


def check(spec: BuildSpec, backend: str, version: str, source: Source | None = None) -> Passed:
    """Return what may be built; raises `ModelError` with the cause for what must not be.

    source: the spec's file, where it has been read already.
    """
    source = source or onnx_file.read(spec.onnx)
    spec = replace(spec, known=onnx_file.checked(source))
    return Passed(spec, () if backend in LENIENT else _findings(spec, source.network, backend, version))


def _findings(spec: BuildSpec, network: onnx.ModelProto, backend: str, version: str) -> tuple[Finding, ...]:
    path = spec.onnx
    _check_ends(network, spec)
    _check_integers(network, path)
    about = context(backend, version, spec.targets)
    findings = rules.lint(from_proto(network, path), context=about, select=REFUSED + EXPLAINING)
    refused = [one for one in findings if one.code in REFUSED]
    if refused:
        raise ModelError(f"{path}: {_cause(refused)}; {_remedy(refused)}")
    return findings


def mend(model: ir.Model, backend: str, version: str, targets: Sequence[str]) -> int:
    """Mend in place what would be refused and can be mended; return how many findings were."""
    return rules.mend(model, context=context(backend, version, targets), select=REFUSED)


def explained(error: BuildError, findings: Sequence[Finding]) -> BuildError:
    """Return the error with the finding that may explain it, without its remedy: the build has taken that."""
    if not findings:
        return error
    first = findings[0]
    return BuildError(f"{error}; what may explain it: {first.message.partition(';')[0]} [{first.code} {first.name}]")


def context(backend: str, version: str, targets: Sequence[str]) -> Context:
    """Return what the rules know of a back end of that version: the name of its kind, and a single target's SM."""
    sm = targets[0] if len(targets) == 1 else None
    return Context(target=_target(backend, version), sm=sm)


def _target(backend: str, version: str) -> str | None:
    if backend == "rtx":
        return "rtx"
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    names = (f"trt{major}.{minor}", f"trt{major}")
    return next((name for name in names if name in rules.finding.EVERY_TARGET), None)


def _cause(findings: Sequence[Finding]) -> str:
    first = findings[0]
    more = f" (and {len(findings) - 1} more like it)" if len(findings) > 1 else ""
    return f"{first.message} [{first.code} {first.name}]{more}"


def _remedy(refused: Sequence[Finding]) -> str:
    if all(one.fixable for one in refused):
        return "build with --fix to have it mended"
    return "`trtq rule " + next(one.code for one in refused if not one.fixable) + "` says what to do"


def _check_ends(network: onnx.ModelProto, spec: BuildSpec) -> None:
    """Raise `ModelError` for what the network's inputs and outputs are that TensorRT is not told or does not have."""
    graph, constants = network.graph, {one.name for one in network.graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            raise ModelError(
                f"{spec.onnx}: tensor '{value.name}' is float64, which TensorRT computes as float32; export it as "
                "float32"
            )
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if any(dim.dim_value < -1 for dim in dims):
            raise ModelError(f"{spec.onnx}: input '{value.name}' has a negative dimension; export it again")
        free = any(not dim.HasField("dim_value") or dim.dim_value == -1 for dim in dims)
        if free and value.name not in constants and not spec.options.profiles:
            raise ModelError(
                f"{spec.onnx}: input '{value.name}' has dynamic dimensions, and nothing says their range; give it "
                "with --shapes, or export it with fixed ones"
            )


def _check_integers(network: onnx.ModelProto, path: Path) -> None:
    zero_points = {node.input[2] for node in network.graph.node if node.op_type in QUANTIZERS and len(node.input) > 2}
    for tensor in network.graph.initializer:
        if tensor.name in zero_points and tensor.data_type in WIDE:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            raise ModelError(
                f"{path}: zero point '{tensor.name}' is {kind}, and TensorRT has no {kind} quantization; quantize to "
                "int8"
            )
