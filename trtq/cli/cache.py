"""`trtq cache`: TensorRT's calibration caches, looked into and turned into Q/DQ and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtq.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from trtq.ptq import Audit

SHOWN = 20
CacheArgument = Annotated[Path, typer.Argument(help="A calibration cache of TensorRT.", show_default=False)]
ReleaseOption = Annotated[
    str, typer.Option(metavar="RELEASE", help="The TensorRT that will read the cache; another one ignores it.")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Nodes that stay float, by name; may be repeated.", show_default=False),
]

app = typer.Typer(help="Read a calibration cache, or turn one into Q/DQ and back.", no_args_is_help=True)


@app.command("show", short_help="Say what a cache holds and how it fits a network.")
def show(
    cache: CacheArgument,
    model: Annotated[Path | None, typer.Argument(help="The float ONNX file it is for.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Say which TensorRT wrote a cache, how many tensors it names, and which of them the network has."""
    from trtq import ptq

    held = ptq.read_cache(cache)
    fit = None if model is None else ptq.audit(held, model)
    if json:
        document = {"file": str(cache), **asdict(held), "unnamed": held.unnamed}
        print_json({**document, "audit": None if fit is None else asdict(fit)})
        return
    print(f"{cache}: {held.algorithm} of TensorRT {held.version}, {len(held.scales)} tensors", end="")
    print(f", {len(held.unnamed)} of them named by TensorRT itself" if held.unnamed else "")
    if fit is not None:
        _print_audit(fit)


@app.command("to-qdq", short_help="Put a cache's scales into a float network as Q/DQ.")
def to_qdq(
    model: Annotated[Path, typer.Argument(help="The float ONNX file that the cache is for.", show_default=False)],
    cache: CacheArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the Q/DQ file goes.", show_default=False)],
    exclude: ExcludeOption = None,
    json: JsonOption = False,
) -> None:
    """Write the network with Q/DQ of the cache's scales: what TensorRT 11 takes in place of a cache."""
    from trtq import ptq

    made = ptq.cache_to_qdq(model, ptq.read_cache(cache), output, exclude or ())
    if json:
        print_json({"file": str(output), **asdict(made)})
        return
    _print_audit(made.audit)
    _print_list("takes its group's scale, not its own", made.tied)
    _print_list("takes a neighbour's range", made.derived)
    _print_list("stays float", made.left_float)
    print(f"{output}: {len(made.scales)} tensors quantized, {made.layers} layers with int8 weights")


@app.command("from-qdq", short_help="Turn a Q/DQ network into a float one, a cache and layer precisions.")
def from_qdq(
    model: Annotated[Path, typer.Argument(help="A Q/DQ ONNX file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the cache goes.", show_default=False)],
    network: Annotated[
        Path | None, typer.Option(help="Where the float network goes. [default: beside the cache, as .float.onnx]")
    ] = None,
    precisions: Annotated[
        Path | None, typer.Option(help="Where the text for trtexec --layerPrecisions goes.", show_default=False)
    ] = None,
    tensorrt: ReleaseOption = "10.3.0",
    json: JsonOption = False,
) -> None:
    """Take the Q/DQ out of a network and keep its scales: for DLA, and for implicit mode up to TensorRT 10."""
    from trtq import ptq

    target = network or output.with_suffix(".float.onnx")
    made = ptq.qdq_to_cache(model, target, output, ptq.header_version(tensorrt), precisions)
    if json:
        print_json({"cache": str(output), "network": str(target), **asdict(made), "precisions": made.precisions})
        return
    _print_list("is read by quantizers of several scales; the largest counts", made.repeated)
    _print_list("stays out of int8", made.float_layers)
    _print_list("has a scale that is not its maximum / 127, which TensorRT will take", made.rescaled_weights)
    print(f"{target}: float, {made.weights} weights restored")
    print(f"{output}: {len(made.cache.scales)} tensors, {made.trained} with scales of the file")


@app.command("port", short_help="Give a cache to another TensorRT.")
def port(
    cache: CacheArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the new cache goes.", show_default=False)],
    tensorrt: ReleaseOption = "10.3.0",
) -> None:
    """Write the same scales under another release's header: TensorRT passes over a cache of another release."""
    from dataclasses import replace

    from trtq import ptq

    held = ptq.read_cache(cache)
    ptq.write_cache(output, replace(held, version=ptq.header_version(tensorrt)))
    print(f"{output}: {len(held.scales)} tensors for TensorRT {tensorrt}, as {held.algorithm}")


def _print_audit(fit: Audit) -> None:
    print(f"{len(fit.matching)} keys match the network, {len(fit.stale)} are stale", end="")
    print(f", {len(fit.without_range)} tensors that int8 needs have no range")
    meant = (f"{name}; did you mean '{near}'?" if near else name for name, near in fit.stale)
    _print_list("stale", tuple(meant))
    _print_list("has no range", fit.without_range)
    _print_list("has a scale of zero", fit.zero)


def _print_list(what: str, names: Iterable[Any]) -> None:
    from trtq.report.wording import printable

    listed = tuple(names)
    for name in listed[:SHOWN]:
        print(f"  {what}: {printable(str(name))}")
    if len(listed) > SHOWN:
        print(f"  {what}: {len(listed) - SHOWN} more (--json lists all)")
