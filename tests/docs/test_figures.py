"""Figures in the pages' prose are those of the records: each sentence is written from its record and looked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import present
from tests.docs.pages import DOCS, ROOT, prose

RESULTS = ROOT / "benchmarks" / "results"
NUMBERS = {3: "three"}
RESNET = "trt8-resnet18-a100: "


class Figures(NamedTuple):
    """What a page says of a record: the sentences, without line breaks, as the record wants them."""

    page: str
    record: str
    sentences: Callable[[Any], Iterator[str]]


def caches(record: Any) -> Iterator[str]:
    quantized, equal = record["quantized_tensors"], record["scales_equal_to_the_cache"]
    yield f"a published cache of a YOLOv5s, {record['tensors']} tensors"
    yield f"and all {record['keys_matching']} keys match"
    yield f"Of the {quantized} tensors that are quantized, {equal} have the cache's scale"
    yield f"to the bit and {quantized - equal} that of their group; ONNX Runtime computes with exactly those"
    yield f"exactly those {record['scales_seen_in_onnx_runtime']} scales"
    yield f"The way back gives all {record['back']['keys_in_both']} keys"


def readers(record: Any) -> Iterator[str]:
    kinds = [one["is"] for one in record["by_file"].values()]
    count = {kind: kinds.count(kind) for kind in kinds}
    others = count.pop("none of these")
    assert record["agree"] == record["files"] == len(kinds)
    yield f"reads {len(kinds) - others} files of real engines of TensorRT 8.0 to 11.0 ({count.pop('layers')} layer"
    yield f"{count.pop('profile')} profiles, {count.pop('times')} times, {count.pop('log')} logs, {sum(count.values())}"
    yield f"{others} more files that are none of these"


def mutants(record: Any) -> Iterator[str]:
    assert record["wrong"] == []
    yield f"`python -m benchmarks.fuzzed_readers` does so with {record['files']:,} mutated ones"


def predictions(record: Any) -> Iterator[str]:
    fused = [one["fused_layers"] for one in record["float"].values()]
    same, real = (sum(one[key] for one in fused) for key in ("same", "real"))
    yield f"share layers as predicted in {same} of {real} layers"
    tiny = record["yolov7_tiny"]
    yield f"keeps {tiny['naive']} conversions as placed and {tiny['unified']} after `trtq unify`"
    yield f"as many as with one single scale in the whole file ({tiny['one_scale_in_the_file']})"


def pictures(record: Any) -> Iterator[str]:
    yield f"full-size YOLOv7 ({record['graph']['layers']} layers, as TensorRT-RTX compiles it)"
    sizes = sorted(int(size) for size in record["graph"]["by_layers"])
    yield f"engines of {sizes[0]}, {sizes[1]} and {sizes[2]:,} layers"


def halves(record: Any) -> Iterator[str]:
    """Signal-to-noise ratios and accuracies of what the FP16 converters write, and ResNet-50's convolutions."""
    forms: dict[str, list[float]] = {"Q/DQ": [], "float": []}
    for name, network in record["networks"].items():
        for form, converted in network.items():
            found = [one["sqnr_db"] for what, one in converted.items() if what != "not converted" and "sqnr_db" in one]
            forms[form] += [] if name == "yolov7" else found
    quantized, floats = forms["Q/DQ"], forms["float"]
    yield f"itself in float32 is {min(quantized):.0f} to {max(quantized):.0f} dB for every file that ONNX Runtime runs"
    yield f"where a float network has {min(floats):.0f} to {max(floats):.0f}"
    resnet = record["networks"]["resnet50"]["Q/DQ"]
    resnet_convolutions = resnet["trtq"]["rtx"]["convolutions"]["int8 to float32"] - 1  # the last layer is a Gemm
    back = resnet["modelopt autocast"]["rtx"]["convolutions"]["float32 to float32"]
    layers = resnet["trtq"]["rtx"]["convolutions"]
    single = resnet["trtq, one weight scale"]["rtx"]["convolutions"]["int8 to float16"]
    yield f"{NUMBERS[resnet_convolutions - single]} of the {resnet_convolutions} convolutions keep one scale a channel"
    yield f"put {back} of its {layers['int8 to float32']} quantized layers back into float32"
    assert list(layers) == ["int8 to float32"], "and trtq keeps every one in int8"
    digits = record["networks"]["yolov7-tiny-digits"]["Q/DQ"]
    plain, half, one = (
        f"{100 * digits[name]['accuracy']['map50_95']:.2f}"
        for name in ("not converted", "trtq", "trtq, one weight scale")
    )
    yield f"YOLOv7-tiny with Q/DQ {plain} mAP50-95 in float32, {half} in FP16 and {one} with one weight scale"
    mobile = record["networks"]["mobilenet_v2-digits"]
    assert {one["accuracy"]["top1"] for form in mobile.values() for one in form.values() if one.get("accuracy")} == {
        mobile["float"]["not converted"]["accuracy"]["top1"]
    }
    yield f"MobileNetV2 {100 * mobile['float']['not converted']['accuracy']['top1']:.2f} % in every form"


def beside_modelopt(record: Any) -> Iterator[str]:
    def worst(network: Any, tool: str) -> float:
        return float(min(network["quantized"][tool]["sqnr_db"].values()))

    networks = record["networks"].values()
    behind = [round(worst(one, "trtq mse") - worst(one, "modelopt max"), 1) for one in networks]
    yield f"modelopt ends {min(behind)} to {max(behind)} dB below trtq's default"
    below = [one for one in networks if worst(one, "trtq entropy") < worst(one, "modelopt entropy")]
    assert (len(below), len(networks)) == (4, 5)
    yield "With `entropy` trtq ends below modelopt's on four of the five"
    for one in networks:
        if one["float_accuracy"]:
            (measure,) = {"top1", "map50_95"} & set(one["float_accuracy"])
            for tool in ("trtq mse", "modelopt entropy"):
                assert abs(one["quantized"][tool]["accuracy"][measure] - one["float_accuracy"][measure]) < 0.002
    yield "both tools' defaults keep the trained ones within 0.2 points of the float accuracy"


def natively(record: Any) -> Iterator[str]:
    small = [record["networks"][name] for name in ("mobilenet_v2-digits", "yolov7-tiny-digits")]
    times_ms = [one["wall"]["median_us"]["float32"] / 1000 for one in small]
    assert times_ms[0] < 0.5 and 0.7 < times_ms[1] < 1.3
    yield "float32 takes less than half a millisecond, and about one"
    yield f"the {small[1]['operators']['native qat']['QLinearLeakyRelu']['nodes']} LeakyRelus"


def differences(record: Any) -> Iterator[str]:
    profiled = record["profiled"]
    last = profiled[f"{RESNET}qat to qat-residual-qgap"]
    for place in last["places"]:
        where, shown = place["region"].partition(":")[0], signed(place["cost_us"])
        conversion = place["parts_us"].get("extra conversion")
        row = rf"\| {where}[^|]* \| {place['class']} \| {re.escape(shown)}( \||, no difference shown \|)"
        assert re.search(row + (f" {signed(conversion)} " if conversion else " ") + r"\|", text_of("diff.md")), row
    yield f"| **{signed(last['total_us'])}** |"
    cost = costs(last)
    conversions, all_us = -cost["Q/DQ conversions"], -last["total_us"]
    yield f"take {conversions:.1f} of the {all_us:.1f} µs less, {100 * conversions / all_us:.0f} %"
    yield f"The convolutions take {-cost['convolutions']:.1f} µs less, the pools {-cost['pools']:.1f} µs"
    yield f"the copies {-cost['reformats and copies']:.1f} µs"
    yield f"The engines' own mean times differ by {-last['engines_own_us']:.1f} µs"
    first = profiled[f"{RESNET}fp16 to qat"]
    cost = costs(first)
    yield f"From FP16 to naive QAT, {first['total_us']:.1f} µs more: the 21 convolutions"
    yield f"take {-cost['convolutions']:.1f} µs less in int8"
    yield f"ten conversions take {cost['Q/DQ conversions']:.1f} µs, and the two pools {cost['pools']:.1f} µs"
    yield f"The engines' own times differ by {first['engines_own_us']:.1f} µs"
    whole = record["yolov7@640"]
    yield f"{whole['double_writes_named']} tensors are written twice"
    yield f"the whole {-whole['total_bytes'] / 1e6:.1f} MB of traffic saved"
    assert whole["seconds_of_long_engines"]["median_s"] < 0.2
    yield f"two engines of {whole['seconds_of_long_engines']['layers'][0]} layers takes less than 0.2 s"
    assert whole["seconds"]["with_the_onnx_files"]["median_s"] < 0.4
    yield "YOLOv7 with the linter on both ONNX files less than 0.4 s"


def costs(one: Any) -> dict[str, float]:
    return {role["role"]: role["cost_us"] for role in one["roles"]}


def signed(cost_us: float) -> str:
    return f"{'+' if cost_us > 0 else '−'}{abs(cost_us):.1f}"


def text_of(name: str) -> str:
    return " ".join(prose(DOCS / name).split())


FIGURES = (
    Figures("calibration-cache.md", "calibration_cache", caches),
    Figures("layers.md", "readers", readers),
    Figures("layers.md", "fuzzed_readers", mutants),
    Figures("predict.md", "predictor", predictions),
    Figures("graph.md", "report_cost", pictures),
    Figures("fp16.md", "fp16_pass", halves),
    Figures("ptq.md", "ptq_peers", beside_modelopt),
    Figures("onnxruntime.md", "ort_native", natively),
    Figures("diff.md", "engine_diffs", differences),
)


@pytest.mark.parametrize("figures", FIGURES, ids=lambda one: f"{one.page} {one.record}")
def test_the_prose_says_what_was_recorded(figures: Figures) -> None:
    text = text_of(figures.page)
    record = json.loads((RESULTS / f"{figures.record}.json").read_text())
    assert [sentence for sentence in figures.sentences(record) if sentence not in text] == []


def test_the_shown_scale_groups_add_up() -> None:
    """docs/unify.md says what its columns mean: bits as log2, the worst member's loss as 20 log10 of the scales."""
    shown = re.findall(
        r"(?m)^ \S+ +(0\.\d+) +(\d\.\d\d)(?: +(0\.\d+) +(\d\.\d\d))?(.*)$", (DOCS / "unify.md").read_text()
    )
    assert len(shown) == 10
    shared = measured = 0.0
    for own, bits, group, loss, rest in shown:
        if group:
            shared, measured = float(group), float(present(re.match(r" *(\d+\.\d\d)? ", rest))[1] or 0)
        assert float(bits) == pytest.approx(math.log2(shared / float(own)), abs=0.01)
        if loss and not measured:  # with images the prediction is from magnitudes
            assert float(loss) == pytest.approx(20 * math.log10(shared / float(own)), abs=0.02)
        if loss and measured:
            assert float(loss) == pytest.approx(measured, abs=0.1)
