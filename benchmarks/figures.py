"""The README's table of what trtq costs and gives, beside other tools where there is one: written from the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks import markdown
from benchmarks.recording import RESULTS
from trtq import files

Record = Mapping[str, Any]


class Row(NamedTuple):
    """One claim: what is measured, beside what, and what its record says."""

    measured: str
    beside: str
    record: str
    figure: Callable[[Record], str]


def table() -> str:
    """Return the table in Markdown; raises `ModelError` where a record is missing or damaged."""
    rows = []
    for row in ROWS:
        path = RESULTS / f"{row.record}.json"
        link = f"[{row.record}](benchmarks/results/{path.name})"
        rows.append([row.measured, row.beside, row.figure(files.read_json(path)), link])
    return markdown.table(["what", "beside", "result", "record"], rows, "llll")


def span(values: Iterable[float], digits: int = 1) -> str:
    """Return the least and the largest of some figures, one where both read the same."""
    found = sorted(values)
    words = [f"{one:.{digits}f}" for one in (found[0], found[-1])]
    return words[0] if words[0] == words[1] else f"{words[0]} to {words[1]}"


def ptq_beside_modelopt(record: Record) -> str:
    ratios = [one["of_modelopt"] for one in record["networks"].values()]
    time, memory, traffic = (span((one[key] for one in ratios), 2) for key in ("s", "peak_mib", "traffic_bytes"))
    return f"{time} times the time, {memory} times the memory, {traffic} times the compiled traffic"


def ptq_behind_modelopt(record: Record) -> str:
    return "; ".join(record["where_not_better"]) or "none"


def ptq_by_images(tool: str) -> Callable[[Record], str]:
    """Return what writes the cost of `trtq ptq`'s max calibration beside a tool's, for few images and for many."""

    def written(record: Record) -> str:
        ratios = [one[tool] for one in record["trtq_of"].values()]
        time, memory = (" → ".join(f"{one[key]:.2f}" for one in ratios) for key in ("s", "peak_mib"))
        return f"{time} times the time, {memory} times the memory"

    return written


def unify_of_yolov7(record: Record) -> str:
    found = [one["of_floor"] for name, one in record["networks"].items() if name.startswith("yolov7")]
    return "; ".join(
        f"`{command}` {span((one[command]['time'] for one in found), 2)} times the time,"
        f" {span((one[command]['memory'] for one in found), 2)} times the memory"
        for command in ("lint", "unify")
    )


def unify_by_nodes(record: Record) -> str:
    found = [one for name, one in record["networks"].items() if name.startswith("generated")]
    found.sort(key=lambda one: int(one["nodes"]))

    def seconds(command: str) -> str:
        return " → ".join(f"{one['medians'][command]['s']:.1f}" for one in found)

    return f"`lint` {seconds('lint')} s, `unify` {seconds('unify')} s, the floor {seconds('floor')} s"


def rtx_beside_bare(record: Record) -> str:
    found = record["networks"].values()
    more = span(one["medians"]["trtq"]["s"] - one["medians"]["bare"]["s"] for one in found)
    time, memory = (span((one["of_bare"][key] for one in found), 2) for key in ("s", "peak_mib"))
    return f"{time} times the time ({more} s more), {memory} times the memory"


def native_int8(record: Record) -> str:
    parts = []
    for name, one in record["networks"].items():
        if one["accuracy"] is None:  # the published width: the demo's networks are too narrow to gain
            ratios = one["wall"]["times_as_fast_as_float32"]
            own = max(ratio["ratio"] for form, ratio in ratios.items() if form.startswith("onnxruntime"))
            mine = span((ratio["ratio"] for form, ratio in ratios.items() if form.startswith("native")), 2)
            network, _, size = name.rpartition("-")
            parts.append(f"{network} at {size} px {mine} times as fast as float32 (ONNX Runtime's own {own:.2f})")
    return "; ".join(parts)


def fp16_traffic(record: Record) -> str:
    saved = []
    for one in record["networks"].values():
        per_channel, per_tensor = (
            one["Q/DQ"][name]["rtx"]["traffic_mb"] for name in ("trtq", "trtq, one weight scale")
        )
        saved.append(100 * (1 - per_tensor / per_channel))
    return f"{span(saved, 0)} % less on {len(saved)} networks"


def pages(record: Record) -> str:
    picture, written = record["graph"]["views"]["whole"], record["report"]["pages"].values()
    found = sorted(written, key=lambda one: float(one["s"]))
    seconds, ratios = (" and ".join(f"{one[key]:.1f}" for one in found) for key in ("s", "of_floor"))
    megabytes = " and ".join(f"{one['bytes'] / 1e6:.1f}" for one in found)
    return (
        f"`trtq graph` {picture['of_floor']:.1f} times the time ({picture['s']:.1f} s);"
        f" `trtq report` {ratios} times ({seconds} s, {megabytes} MB)"
    )


def hostile(record: Record) -> str:
    return (
        f"{record['crashes_of_trtq']} crashes, {record['tracebacks']} tracebacks, {record['wrong_engines']} wrong"
        f" engines; {record['refused']} refused with their cause, {record['built']} built"
    )


def predictions(record: Record) -> str:
    found = record["quantized"].values()
    match, compared = (sum(one["tensors"][key] for one in found) for key in ("match", "compared"))
    predicted = ", ".join(f"{one['conversions']['predicted']} of {one['conversions']['real']}" for one in found)
    return f"{match} of {compared} tensor types right; conversions predicted: {predicted}"


def coverage(record: Record) -> str:
    found = record["families"].values()
    equal = span((100 * one["equal"]["no_difference_shown"] for one in found), 1)
    apart = span((100 * one["apart"]["covered"] for one in found), 1)
    return f"no difference shown between equals in {equal} %; intervals of a true 3 % hold it in {apart} %"


def start(record: Record) -> str:
    slowest = max(record["median_s"], key=record["median_s"].__getitem__)
    return f"at most {record['median_s'][slowest]:.2f} s (`{slowest}`)"


ROWS = (
    Row(
        "`trtq ptq`, default (mse), five float ONNX files",
        "nvidia-modelopt, its faster calibrator",
        "ptq_peers",
        ptq_beside_modelopt,
    ),
    Row(
        "figures in which it is behind",
        "nvidia-modelopt, its default calibrator or its better one",
        "ptq_peers",
        ptq_behind_modelopt,
    ),
    Row(
        "`trtq ptq`, max, 16 → 256 images",
        "ONNX Runtime's quantizer, MinMax",
        "ptq_growth",
        ptq_by_images("onnxruntime MinMax"),
    ),
    Row("`trtq ptq`, max, 16 → 256 images", "nvidia-modelopt, max", "ptq_growth", ptq_by_images("modelopt max")),
    Row(
        "`trtq lint` and `trtq unify` of YOLOv7, float and int8 weights",
        "loading, checking and saving the file by onnx-graphsurgeon",
        "unify_cost",
        unify_of_yolov7,
    ),
    Row("the same, 1,000 → 10,000 → 100,000 nodes", "the same", "unify_cost", unify_by_nodes),
    Row(
        "`trtq build --backend rtx`: checks, lint, layer table, manifest",
        "TensorRT-RTX's builder alone",
        "rtx_bare",
        rtx_beside_bare,
    ),
    Row(
        "int8 on a CPU (`ort-native`), published widths",
        "float32, and ONNX Runtime's own int8",
        "ort_native",
        native_int8,
    ),
    Row(
        "activation traffic with one weight scale a convolution, FP16 rest, compiled",
        "one a channel",
        "fp16_pass",
        fp16_traffic,
    ),
    Row(
        "picture of full-size YOLOv7; page of four modes of it, and of 400 layers a mode",
        "reading the layers and Graphviz's `dot` alone",
        "report_cost",
        pages,
    ),
    Row("broken and hostile ONNX files through `trtq build`", "–", "hostile_files", hostile),
    Row(
        "`trtq predict` of ResNet18 and MobileNetV2",
        "NVIDIA's published engines, TensorRT 8.4 and 8.5",
        "predictor",
        predictions,
    ),
    Row(
        "`trtq bench`, 1,000 comparisons of each of seven kinds of simulated timings",
        "the truth",
        "bench_statistics",
        coverage,
    ),
    Row("`--help` of every command", "–", "startup", start),
)
