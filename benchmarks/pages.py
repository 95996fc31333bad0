"""Write the tables and printed results of the pages from recorded results, and from recorded engines where they are.

python -m benchmarks.pages

The engines are NVIDIA's, in ../shared; without them the sections made of them stay as they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import markdown, page_tables
from benchmarks.page_tables import PREDICTOR
from benchmarks.readme import SCALE, scale_table
from benchmarks.recording import RESULTS, ROOT, trtq
from trtq import files

DOCS = ROOT / "docs"
ENGINES = ROOT.parent / "shared" / "data" / "engines" / "trt8-resnet18-a100"
DEMO = RESULTS / "yolov7-tiny-digits.json"
# As NVIDIA named the engines: what is quantized beside the inputs of every convolution.
RESNETS = {
    "fp16": "FP16",
    "qat": "INT8, residuals float",
    "qat-residual": "INT8, residuals too",
    "qat-residual-qgap": "INT8, and the average pool",
}


class Section(NamedTuple):
    """A part of a page that is written: by what, and from which file or folder."""

    page: str
    name: str
    write: Callable[[], str]
    source: Path


def resnet18_table() -> str:
    """Return ResNet18's engines on an A100: NVIDIA's throughput beside what trtq reads in their layer tables."""
    rows = []
    for name, title in RESNETS.items():
        facts, _ = trtq("layers", ENGINES / f"{name}.graph.json", "--profile", ENGINES / f"{name}.profile.json")
        summary = files.read_json(ENGINES / f"{name}.profile.metadata.json")["performance_summary"]
        throughput, time_us = f"{summary['Throughput']:.0f}", f"{facts['time_us']:.0f}"
        rows.append([title, throughput, facts["conversions"], facts["float_writes"], time_us, "measured"])
    heads = ["ResNet18", "queries a second", "conversions", "float tensors written", "sum of layers' times, µs", ""]
    return markdown.table(heads, rows, "lrrrrl")


def resnet18_layers() -> str:
    """Return what `trtq layers` prints of the engines with and without quantized residuals, and FP16."""
    return printed("layers", [f"{name}.layers.json" for name in ("fp16", "qat", "qat-residual")])


def resnet18_diff() -> str:
    """Return how `trtq diff` sums up the engines without and with quantized residuals: the total and on."""
    lines = printed("diff", ["qat.layers.json", "qat-residual.layers.json"]).splitlines()
    total = next(number for number, line in enumerate(lines) if line.strip().startswith("total"))
    return "\n".join(["```", "...", *lines[total:]])


def printed(command: str, names: list[str]) -> str:
    """Return what a command prints of the engines' layers, as a code block."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            engine = name.removesuffix(".layers.json")
            profile = ENGINES / f"{engine}.profile.json"
            trtq("layers", ENGINES / f"{engine}.graph.json", "--profile", profile, "-o", Path(folder) / name)
        done = subprocess.run(
            [sys.executable, "-m", "trtq", command, *names],
            cwd=folder,
            env={"COLUMNS": "120", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(["```", *(line for line in lines if line), "```"])


def predictor_table() -> str:
    """Return what is predicted of the published placements beside what NVIDIA's engines say of themselves."""
    rows = []
    for name, one in files.read_json(PREDICTOR)["quantized"].items():
        found, tensors = one["conversions"], one["tensors"]
        same = "yes" if found["of_the_same_tensors"] else "no"
        rows.append([name, found["real"], found["predicted"], same, f"{tensors['match']} of {tensors['compared']}"])
    heads = ["engine", "conversions, real", "predicted", "of the same tensors", "types right"]
    recorded = "*Recorded in `benchmarks/results/predictor.json` by `python -m benchmarks.predictor`.*"
    return "\n".join([markdown.table(heads, rows, "lrrlr"), "", recorded])


def demo_table() -> str:
    """Return the demo's naive and tied network: what is predicted of them and what was compiled."""
    modes: dict[str, Any] = files.read_json(DEMO)["modes"]
    rows: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("Q/DQ left as conversions", "predicted", lambda mode: mode["predicted_conversions"]),
        ("tensors written twice", "compiled", lambda mode: mode["signals"]["double_writes"]),
        ("int8 → int8 requantizes", "compiled", lambda mode: mode["signals"]["requantizes"]),
        ("float tensors written", "compiled", lambda mode: mode["signals"]["float_writes"]),
    )
    cells = [[title, get(modes["naive"]), get(modes["ptq"]), origin] for title, origin, get in rows]
    return markdown.table(["YOLOv7-tiny, digits", "naive", "tied by trtq", ""], cells, "lrrl")


def yolov7_table() -> str:
    """Return what three placements of YOLOv7's quantizers compile to."""
    return scale_table(files.read_json(SCALE)["networks"])


SECTIONS = (
    Section("concepts.md", "resnet18", resnet18_table, ENGINES),
    Section("troubleshooting.md", "resnet18 layers", resnet18_layers, ENGINES),
    Section("troubleshooting.md", "resnet18 diff", resnet18_diff, ENGINES),
    Section("troubleshooting.md", "yolov7", yolov7_table, SCALE),
    Section("fp16.md", "fp16", page_tables.fp16_traffic, page_tables.FP16),
    Section("fp16.md", "fp16 cost", page_tables.fp16_cost, page_tables.FP16),
    Section("onnxruntime.md", "speed", page_tables.native_speed, page_tables.NATIVE),
    Section("onnxruntime.md", "accuracy", page_tables.native_accuracy, page_tables.NATIVE),
    Section("bench.md", "statistics", page_tables.intervals, page_tables.STATISTICS),
    Section("predict.md", "predictor", page_tables.predictions, page_tables.PREDICTOR),
    Section("predict.md", "growth", page_tables.growth, page_tables.PREDICTOR),
    Section("ptq.md", "modelopt", page_tables.ptq_beside_modelopt, page_tables.PTQ),
    Section("predicted-compiled-measured.md", "predictor", predictor_table, PREDICTOR),
    Section("predicted-compiled-measured.md", "demo", demo_table, DEMO),
)


def with_section(text: str, section: Section) -> str:
    """Return a page's text with one section written; raises `ValueError` where the page has no such section."""
    start, end = f"<!-- {section.name} results: written by benchmarks/pages.py -->", "<!-- end of results -->"
    body = section.write()
    text, count = re.subn(
        rf"(?s){re.escape(start)}\n.*?{re.escape(end)}", lambda _: f"{start}\n{body}\n{end}", text, count=1
    )
    if not count:
        raise ValueError(f"docs/{section.page} has no section '{section.name}'")
    return text


def main() -> None:
    for section in SECTIONS:
        path = DOCS / section.page
        if section.source.exists():
            files.write_text(path, with_section(path.read_text(), section))
            print(f"docs/{section.page}: {section.name}")


if __name__ == "__main__":
    main()
