"""The command line: one file a command; each parses, calls one function and prints."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from trtq import __version__
from trtq.cli import (
    bench,
    build,
    cache,
    diff,
    doctor,
    eval_,
    export,
    finetune,
    fp16,
    graph,
    layers,
    lint,
    predict,
    ptq,
    quantize,
    report,
    rule,
    unify,
)
from trtq.errors import MissingBackendError, OutputError, TrtqError

INTERRUPTED = 130
# Imports make many objects that stay: looking among them for garbage after every 700 is a tenth of a short command.
OBJECTS_BETWEEN_COLLECTIONS = 10_000
# Which extra brings a package that a command turns out to need.
EXTRAS = {
    "torch": "torch",
    "torchvision": "torch",
    "pytorch_quantization": "torch",
    "safetensors": "torch",
    "absl": "torch",
    "onnxruntime": "ort",
    "pycocotools": "ort",
    "tensorrt_rtx": "rtx",
}

app = typer.Typer(
    name="trtq",
    help="PyTorch networks to INT8 TensorRT engines: as fast as PTQ, as accurate as training, and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of `trtq --help`: the main command, then its stages, then what looks at results.
COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("build", build.build, "Take a recipe to engines and a report (the main command)."),
    ("quantize", quantize.quantize, "Insert, tie and calibrate quantizers."),
    ("finetune", finetune.finetune, "Train the quantized network (QAT)."),
    ("export", export.export, "Export the network to ONNX."),
    ("ptq", ptq.ptq, "Quantize a float ONNX file."),
    ("fp16", fp16.fp16, "Cast the float part of an ONNX file to FP16."),
    ("unify", unify.unify, "Give tensors that TensorRT joins one scale."),
    ("lint", lint.lint, "Check a Q/DQ file by TensorRT's rules."),
    ("rule", rule.rule, "Explain a lint rule."),
    ("eval", eval_.evaluate, "Measure the accuracy of an ONNX file."),
    ("predict", predict.predict, "Predict what TensorRT fuses, without TensorRT."),
    ("layers", layers.layers, "Show the signals of engines' layer tables."),
    ("bench", bench.bench, "Time engines, and say whether one is faster."),
    ("diff", diff.diff, "List what two engines do differently."),
    ("graph", graph.graph, "Draw an engine as SVG."),
    ("report", report.report, "Write the HTML report of a recipe."),
    ("doctor", doctor.doctor, "Say what this machine has and can do."),
)
for name, command, summary in COMMANDS:
    app.command(name, short_help=summary)(command)
app.add_typer(cache.app, name="cache", short_help="Turn a calibration cache into Q/DQ and back.")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"trtq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; deliberate errors become one sentence and their exit code, anything else is a bug."""
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter's end tries, and complains, once more
        print("trtq: the disk that it writes to is full; make room and run it again", file=sys.stderr)
        sys.exit(OutputError.exit_code)


def _run() -> None:
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        # Who runs this as a stage holds interrupts back until here, where they are handled.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        app()
    except TrtqError as error:
        if str(error):
            print(f"trtq: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        print(f"trtq: this needs '{error.name}', which is not installed; pip install 'trtq[{extra}]'", file=sys.stderr)
        sys.exit(MissingBackendError.exit_code)
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _end_interrupted()
        raise
    finally:
        # Nor does the interpreter look for garbage at its end.
        gc.freeze()


def _end_interrupted() -> NoReturn:
    if "TRTQ_CHILD" not in os.environ:
        print("trtq: interrupted; run the same command again to go on", file=sys.stderr)
    # An interrupt inside `exec` of a text (dataclasses make their methods so) lets CPython end by the signal and not
    # with the code that it is given, unless another text has run since.
    exec("")
    sys.exit(INTERRUPTED)
