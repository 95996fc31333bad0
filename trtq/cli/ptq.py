"""`trtq ptq`: a float ONNX file into a calibrated Q/DQ file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json
from trtq.cli.progress import progress_bars

if TYPE_CHECKING:
    from trtq.ptq import Insertion

SHOWN_FLOAT_LAYERS = 10


class CalibratorName(str, Enum):
    """How a range follows from the magnitudes of a scale group."""

    max = "max"
    percentile = "percentile"
    mse = "mse"
    entropy = "entropy"


class WeightForm(str, Enum):
    """How int8 weights are stored."""

    int8 = "int8"
    float = "float"


def ptq(
    model: Annotated[Path, typer.Argument(help="A float ONNX file.", show_default=False)],
    calibration: Annotated[
        Path,
        typer.Option(
            metavar="IMAGES",
            help="Images to calibrate on: a folder of pictures, an array (.npy, .npz), or a recipe (.toml).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the Q/DQ file goes.", show_default=False)],
    calibrator: Annotated[
        CalibratorName, typer.Option(help="How a range follows from what the images show.")
    ] = CalibratorName.mse,
    percentile: Annotated[
        float, typer.Option(min=0, max=100, help="The share of values inside the range, for --calibrator percentile.")
    ] = 99.99,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave the nodes of this name, or that write it, float; may be repeated.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        WeightForm, typer.Option(help="int8: for TensorRT 10 and later. float: Q/DQ behind them, for TensorRT 8.")
    ] = WeightForm.int8,
    images: Annotated[
        int | None, typer.Option(min=1, help="Calibrate on the first so many images only.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads that ONNX Runtime takes.")] = 1,
    json: JsonOption = False,
) -> None:
    """Quantize a float network: calibrate it on images and put in Q/DQ, scales tied from the start."""
    from trtq import ptq as room
    from trtq import qdq
    from trtq.data.images import load_images

    batches = load_images(calibration, room.input_shape(qdq.load(model)), images)
    with progress_bars() as bars:
        inserted = room.quantize_file(
            model,
            output,
            batches,
            calibrator=calibrator.value,
            percentile=percentile,
            exclude=exclude or (),
            weights=weights.value,
            progress=bars("batches"),
            threads=threads,
        )
    if json:
        print_json(_document(output, calibrator.value, batches.images, inserted))
    else:
        _print(output, calibrator.value, batches.images, inserted)


def _document(output: Path, calibrator: str, images: int, inserted: Insertion) -> dict[str, Any]:
    return {
        "file": str(output),
        "calibrator": calibrator,
        "images": images,
        "layers": inserted.layers,
        "pairs": inserted.pairs,
        "groups": inserted.groups,
        "amax": dict(inserted.amax),
        "left_float": list(inserted.left_float),
        "notes": list(inserted.notes),
    }


def _print(output: Path, calibrator: str, images: int, inserted: Insertion) -> None:
    from rich.console import Console
    from rich.table import Table

    from trtq.report.wording import printable

    table = Table.grid(padding=(0, 2))
    table.add_row("layers in int8", f"{inserted.layers}")
    table.add_row("layers left float", f"{len(inserted.left_float)}")
    table.add_row("Q/DQ pairs", f"{inserted.pairs}")
    table.add_row("scales that tensors share", f"{inserted.groups}")
    table.add_row("ranges", f"{calibrator} on {images} images")
    Console().print(table)
    for line in inserted.left_float[:SHOWN_FLOAT_LAYERS]:
        print(f"float: {printable(line)}")
    if len(inserted.left_float) > SHOWN_FLOAT_LAYERS:
        print(f"float: and {len(inserted.left_float) - SHOWN_FLOAT_LAYERS} more (--json lists them)")
    for line in inserted.notes:
        print(f"note: {printable(line)}")
    print(output)
