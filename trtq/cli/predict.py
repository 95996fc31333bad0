"""`trtq predict`: what TensorRT would make of a file, with no TensorRT and no GPU at hand."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from trtq.predict import Prediction

CONVERSIONS = ("quantize", "dequantize", "requantize", "copy")


class PredictedMode(str, Enum):
    """Which engine is predicted."""

    fp32 = "fp32"
    fp16 = "fp16"
    ptq = "ptq"
    qat = "qat"


def predict(
    model: Annotated[Path, typer.Argument(help="A float or Q/DQ ONNX file.", show_default=False)],
    mode: Annotated[
        PredictedMode,
        typer.Option(help="qat: by the Q/DQ of the file. Without them: ptq (implicit PTQ), fp16, fp32."),
    ] = PredictedMode.qat,
    target: Annotated[
        str | None, typer.Option(help="trt8.5, trt8.6, trt10, trt11, rtx; later ones are less certain.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the layers, for diff and graph.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Predict which layers run in int8 and which Q/DQ survive, by TensorRT's documented rules; nothing is measured."""
    from dataclasses import replace

    from trtq import files, qdq
    from trtq import predict as predictor
    from trtq.pipeline.checking import parse_target

    version = None if target is None else parse_target(target)[0]
    prediction = predictor.predict_types(
        qdq.load(model), "explicit" if mode is PredictedMode.qat else mode.value, target=version
    )
    if output is not None:
        # With its hash the file is known again, and in two predictions of it names are an identity.
        replace(prediction.graph, onnx_sha256=files.sha256(model)).save(output)
    if json:
        print_json({"file": str(model), **prediction.to_json()})
    else:
        _print(model, prediction)


def _print(model: Path, prediction: Prediction) -> None:
    from collections import Counter

    from rich.console import Console

    from trtq.report.text import conversions_table, signals_table

    graph = prediction.graph
    Console().print(signals_table({str(model): graph}))
    kept = [layer for layer in graph.layers if layer.kind in CONVERSIONS]
    if kept:
        Console().print(conversions_table(kept))
    sure = zip(graph.layers, prediction.layer_confidence, strict=True)
    print(f"conversions and copies: {_counts(Counter(one for layer, one in sure if layer.kind in CONVERSIONS))}")
    types, confidence = Counter(prediction.tensors.values()), Counter(prediction.confidence.values())
    print(f"tensors written: {_counts(types)}; {_counts(confidence)}")
    for note in graph.notes:
        print(f"note: {note}")


def _counts(found: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in found.items()) or "none"
