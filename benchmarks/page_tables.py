"""The tables that pages show of single records; `benchmarks.pages` writes them there."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import span
from benchmarks.markdown import table
from benchmarks.recording import RESULTS
from trtq import files

FP16, NATIVE, PREDICTOR, PTQ, STATISTICS = (
    RESULTS / f"{name}.json" for name in ("fp16_pass", "ort_native", "predictor", "ptq_peers", "bench_statistics")
)
# The PTQ network and the QAT network of each form; of ONNX Runtime's own flow, both kinds of weight scales.
FORMS = {
    "as exported": ("as exported ptq", "as exported qat"),
    "native": ("native ptq", "native qat"),
    "ONNX Runtime's own": ("onnxruntime per channel", "onnxruntime per tensor"),
}


def fp16_traffic() -> str:
    """Return the activation traffic of what each FP16 converter makes of float and of quantized networks."""
    networks = files.read_json(FP16)["networks"]
    columns = [(name, form) for name in networks for form in networks[name]]
    rows = [
        [converter, *(_traffic(networks[name][form].get(converter)) for name, form in columns)]
        for converter in ("not converted", *_converters(networks))
    ]
    return table(["", *(f"{name.removesuffix('-digits')}, {form}" for name, form in columns)], rows)


def fp16_cost() -> str:
    """Return the seconds and the peak memory of each FP16 converter, from the least to the most of all networks."""
    networks = files.read_json(FP16)["networks"]
    rows = []
    for converter in _converters(networks):
        found = [forms[form][converter] for forms in networks.values() for form in forms if converter in forms[form]]
        rows.append([converter, span(one["s"] for one in found), span((one["peak_mib"] for one in found), 0)])
    return table(["converter", "time, s", "peak memory, MiB"], rows)


def _converters(networks: dict[str, Any]) -> list[str]:
    found = {name for forms in networks.values() for rows in forms.values() for name in rows} - {"not converted"}
    return sorted(found, key=lambda name: (not name.startswith("trtq"), name))


def _traffic(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "–"
    compiled = outcome.get("rtx")
    if not isinstance(compiled, dict):
        return "not built"
    return f"{compiled['traffic_mb']:.{1 if compiled['traffic_mb'] > 10 else 2}f}"


def native_speed() -> str:
    """Return how many times as fast as float32 each form runs on this processor, PTQ and QAT."""
    rows = []
    for name, one in files.read_json(NATIVE)["networks"].items():
        ratios = one["wall"]["times_as_fast_as_float32"]
        cells = [f"{span((ratios[form]['ratio'] for form in forms), 2)} ×" for forms in FORMS.values()]
        rows.append([f"{name.rpartition('-')[0]}, {_width(one)}, {one['image_size']} × {one['image_size']}", *cells])
    return table(["network", *FORMS], rows)


def native_accuracy() -> str:
    """Return the accuracy of the demo's networks in each form, PTQ and QAT."""
    rows = []
    for name, one in files.read_json(NATIVE)["networks"].items():
        found = one["accuracy"]
        if found is not None:
            metric = "top1" if "top1" in found["float32"] else "map50_95"
            columns = (("float32",), *FORMS.values())
            cells = [span((100 * found[form][metric] for form in forms), 2) for forms in columns]
            rows.append([f"{name}, {metric.replace('_', '-')}, %", *cells])
    return table(["network", "float32", *FORMS], rows)


def _width(network: dict[str, Any]) -> str:
    return "published width" if network["accuracy"] is None else "the demo's width"


def predictions() -> str:
    """Return what `trtq predict` gets right of each published engine."""
    rows = []
    for name, one in files.read_json(PREDICTOR)["quantized"].items():
        conversions, tensors, layers = one["conversions"], one["tensors"], one["fused_layers"]
        rows.append(
            [
                name,
                f"{conversions['predicted']} ({conversions['real']})",
                f"{tensors['match']} of {tensors['compared']}",
                f"{layers['same']} of {layers['real']}",
            ]
        )
    heads = ["engine", "conversions, predicted (real)", "tensors of the right type", "layers of the right operators"]
    return table(heads, rows)


def intervals() -> str:
    """Return how often the intervals of `trtq bench` hold the truth, by the kind of timings."""
    figures = ("throughput", "p50", "p90", "p95", "p99")
    rows = []
    for name, one in files.read_json(STATISTICS)["families"].items():
        single, others = one["single"]["covered"], one["not_taken"].get("covered", {})
        shares = [one["equal"]["no_difference_shown"], one["apart"]["difference_shown"], one["apart"]["covered"]]
        shares += [single[figure] for figure in figures]
        unused = [others.get(f"{method} bootstrap p50") for method in ("iid", "block")]
        rows.append([name, *("–" if share is None else f"{100 * share:.1f}" for share in (*shares, *unused))])
    heads = ["timings", "no difference", "3 % shown", "ratio", *figures, "single times", "blocks"]
    return table(heads, rows)


def growth() -> str:
    """Return how the time of a prediction grows with the graph."""
    found = files.read_json(PREDICTOR)["growth"]
    few, many = (f"{int(nodes):,}" for nodes in found["by_nodes"])
    times = found["times_as_long_for_ten_times_the_nodes"]
    return f"Time grows with the graph: ten times the nodes ({few} to {many}) take {times} times as long."


def ptq_beside_modelopt() -> str:
    """Return `trtq ptq` beside modelopt's, each with its default calibrator, figure by figure."""
    columns = {
        "int8 convolutions": ("convolutions_quantized", 1, 0),
        "requantizing kernels": ("requantizes", 1, 0),
        "activations moved, MB": ("traffic_bytes", 1e6, 1),
        "SQNR, dB": ("worst_sqnr_db", 1, 1),
        "time, s": ("s", 1, 1),
        "peak memory, MiB": ("peak_mib", 1, 0),
    }
    rows = []
    for name, one in files.read_json(PTQ)["networks"].items():
        pairs = [(one["verdict"][key][:2], unit, digits) for key, unit, digits in columns.values()]
        rows.append(
            [name, *(" / ".join(f"{value / unit:.{digits}f}" for value in pair) for pair, unit, digits in pairs)]
        )
    return table(["network", *columns], rows)
