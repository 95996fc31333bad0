"""The mistakes of trt-engine-explorer, each as a test that trtq does not make it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.layers.test_inspector_versions import FLOAT, INT8, layer, read, tensor
from trtq import layers
from trtq.layers import kinds, trtexec_log
from trtq.layers.dtypes import dtype
from trtq.layers.graph import ITEM_BYTES

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"


def test_consecutive_signals_and_waits_all_go(tmp_path: Path) -> None:
    """It removed them from the list that it walked, and so skipped every second one."""
    synchronization = [
        layer(f"s{n}", kind, [], []) for n, kind in enumerate(("signal", "wait", "wait", "signal_and_wait"))
    ]
    graph = read(tmp_path, [*synchronization, layer("conv", "kgen", [], [tensor("y", INT8)]), *synchronization])
    assert [one.name for one in graph.layers] == ["conv"]


@pytest.mark.parametrize("bindings", [{}, {"Bindings": []}, {"I/O Tensors": []}])
def test_empty_or_missing_bindings(tmp_path: Path, bindings: dict[str, Any]) -> None:
    """It raised on a file without bindings, and so opened none of 11.x."""
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({"Layers": [layer("a", "kgen", [], [tensor("y", INT8)])], **bindings}))
    assert layers.read(path).signals.layers == 1


def profiled(tmp_path: Path, names: list[str], rows: list[dict[str, Any]]) -> layers.LayerGraph:
    path, profile = tmp_path / "engine.json", tmp_path / "profile.json"
    path.write_text(
        json.dumps({"Layers": [layer(name, "kgen", [], [tensor("y", INT8)]) for name in names], "Bindings": []})
    )
    profile.write_text(json.dumps([{"count": 3}, *rows]))
    return layers.read(path, profile)


def test_profile_rows_are_joined_by_name_not_position(tmp_path: Path) -> None:
    """It joined by position as soon as the lengths agreed."""
    rows = [{"name": name, "averageMs": time, "medianMs": time} for name, time in (("b", 0.002), ("a", 0.001))]
    graph = profiled(tmp_path, ["a", "b"], rows)
    assert [one.time_us for one in graph.layers] == [1.0, 2.0]


def test_precision_is_not_the_first_input_s(tmp_path: Path) -> None:
    """It took the first input's; a residual may come first, and weights tell."""
    inputs = [tensor("residual", "Half"), tensor("x", INT8)]
    fused = layer("conv", "CaskConvolution", inputs, [tensor("y", "Half")])
    emulated = layer(
        "conv2", "CaskConvolution", inputs[1:], [tensor("z", "Half")], Weights={"Type": "Half", "Count": 8}
    )
    graph = read(tmp_path, [fused, emulated])
    assert [kinds.runs_int8(one) for one in graph.layers] == [True, False]
    assert graph.signals.int8_share == 0.5


def test_every_dtype_has_its_own_width() -> None:
    """It read BFloat16 as FP32, and gave BF16 and Bool no size."""
    assert [ITEM_BYTES[dtype(word)] for word in ("BFloat16", "Bool", "Half", "FP8", "Int64")] == [2, 1, 2, 1, 8]
    assert dtype("BFloat16") == "bfloat16"


def test_unknown_formats_are_unknown(tmp_path: Path) -> None:
    """Its key for `Unknown format` never matched."""
    graph = read(tmp_path, [layer("a", "kgen", [tensor("x", "Unknown format")], [tensor("y", INT8)])])
    assert graph.layers[0].inputs[0].dtype == "unknown"
    assert graph.signals.traffic_bytes is None


def test_leftover_conversions_are_reformats_too(tmp_path: Path) -> None:
    """It looked at Scale layers alone; most are Reformat layers of origin QDQ."""
    rows = [
        layer("q", "Reformat", [tensor("x", FLOAT)], [tensor("y", INT8)], Origin="QDQ"),
        layer("dq", "Scale", [tensor("y", INT8)], [tensor("z", FLOAT)]),
    ]
    assert read(tmp_path, rows).signals.conversions == 2


@pytest.mark.parametrize("word", ["INT8", "Int8", "int8", "Row major Int8."])
def test_dtypes_in_any_case(word: str) -> None:
    """It compared `INT8` with `Int8`."""
    assert dtype(word) == "int8"


def test_versions_are_numbers() -> None:
    """It compared version texts: "8.6" is not below "10.0" then."""
    versions = [log(compact).version for compact in ("v8003", "v8502", "v8601", "v100001", "v101601", "v110000")]
    assert versions == [(8, 0, 3), (8, 5, 2), (8, 6, 1), (10, 0, 1), (10, 16, 1), (11, 0, 0)]
    assert versions == sorted(versions)


def log(compact: str, body: str = "") -> trtexec_log.TrtexecLog:
    return trtexec_log.parse_log(f"&&&& RUNNING TensorRT.trtexec [TensorRT {compact}] # trtexec\n{body}", "log")


def test_values_keep_their_colons() -> None:
    """It split lines at every colon and kept the first piece of the value."""
    line = '[04/25/2026-00:54:44] [I]   Device 0: "NVIDIA B200" UUID: GPU-1\n'
    memory = "[04/25/2026-00:54:44] [I] Memory Pools: workspace: default, dlaSRAM: default\n"
    sections = log("v110000", f"[04/25/2026-00:54:44] [I] === Device Information ===\n{line}{memory}").sections
    assert sections["Device Information"] == {
        "Device 0": '"NVIDIA B200" UUID: GPU-1',
        "Memory Pools": "workspace: default, dlaSRAM: default",
    }


def test_only_one_profile_s_layers(tmp_path: Path) -> None:
    """Its filter knew profile numbers of one digit."""
    rows = [layer(f"conv [profile {n}]", "kgen", [], [tensor(f"y [profile {n}]", INT8)]) for n in (9, 10, 11)]
    assert [one.name for one in read(tmp_path, rows).layers] == ["conv [profile 9]"]


@pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_generated_kernels_of_version_11_open() -> None:
    graph = layers.read(ENGINES / "trt11.0-mnist-b200" / "layers.json")
    assert sum(one.kind == "kgen" for one in graph.layers) == 6
    assert graph.signals.traffic_bytes is not None
