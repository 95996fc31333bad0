"""`trtq fp16`: the float part of a network in FP16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json


def fp16(
    model: Annotated[Path, typer.Argument(help="A float or Q/DQ ONNX file of any producer.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the FP16 file goes.", show_default=False)],
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Nodes, by name, that stay float32; may be repeated.", show_default=False),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="Keep float32 what overflows on these: a folder of pictures, an array (.npy, .npz), or a recipe.",
            show_default=False,
        ),
    ] = None,
    fp16_io: Annotated[bool, typer.Option("--fp16-io", help="Make inputs and outputs FP16 too.")] = False,
    per_tensor_weights: Annotated[
        bool,
        typer.Option(
            "--per-tensor-weights",
            help="One weight scale for each quantized convolution, the channels' ratios behind it: for TensorRT-RTX.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Cast the float part of a network to FP16; Q/DQ pairs and what would overflow stay float32."""
    from trtq import qdq

    casting = qdq.fp16_file(
        model,
        output,
        keep=keep or (),
        ranges=None if calibration is None else _ranges(model, calibration),
        keep_io=not fp16_io,
        per_tensor_weights=per_tensor_weights,
    )
    document = casting.to_json()
    if json:
        print_json(document)
    else:
        _print(output, document)


def _ranges(model: Path, images: Path) -> Mapping[str, float]:
    """Return the largest magnitude of every float tensor of the network over `images`, by name."""
    from trtq import ptq, qdq
    from trtq.data.images import load_images

    network = qdq.load(model)
    return ptq.max_of(network, qdq.float_tensors(network), load_images(images, ptq.input_shape(network)))


def _print(output: Path, document: Mapping[str, Any]) -> None:
    from trtq.report.wording import printable

    for reason, count in Counter(one["reason"] for one in document["kept"]).most_common():
        nodes = ", ".join(one["node"] for one in document["kept"] if one["reason"] == reason)
        print(f"float32: {count} ({printable(reason)}): {printable(nodes)}")
    weights = document["weights"]
    if weights is not None:
        for one in weights["left"]:
            print(f"one scale a channel: {printable(one['tensor'])} ({printable(one['reason'])})")
        print(f"one weight scale: {len(weights['changed'])} convolutions")
    print(f"{output}: {document['half']} nodes in FP16, {len(document['kept'])} in float32, {document['casts']} casts")
