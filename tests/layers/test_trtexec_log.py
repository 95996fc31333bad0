"""trtexec's logs: real ones of five versions, and what decides whether two figures compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtq import layers
from trtq.errors import ModelError
from trtq.layers import trtexec_log
from trtq.layers.trtexec_log import DEFAULTS_FROM_11, DEFAULTS_UP_TO_10, Regime, parse_log, parse_runs, read_log

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
needs_engines = pytest.mark.skipif(
    not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout"
)
STAMP = "[09/08/2026-10:20:22] [I] "


def log(*lines: str, version: str = "v8601", flags: str = "") -> trtexec_log.TrtexecLog:
    head = f"&&&& RUNNING TensorRT.trtexec [TensorRT {version}] # trtexec --loadEngine=a.plan {flags}"
    return parse_log("\n".join([head, *(STAMP + line for line in lines)]), "log")


@needs_engines
@pytest.mark.parametrize(
    ("file", "version", "device", "qps", "mean_ms", "percents"),
    [
        ("trtexec-logs/trt8.0.3.txt", (8, 0, 3), "NVIDIA GeForce GTX 1070", 6378.46, 0.16121, {99}),
        ("trtexec-logs/trt8.2.3.txt", (8, 2, 3), "NVIDIA GeForce GTX 1070", 6199.99, 0.159595, {99}),
        ("trtexec-logs/trt8.6.0-verbose.log", (8, 6, 0), "NVIDIA GeForce RTX 3090", 20565.7, 0.0537879, {90, 95, 99}),
        ("trt11.0-mnist-b200/summary.excerpt.log", (11, 0, 0), "NVIDIA B200", 23215, 0.0403384, {90, 95, 99}),
    ],
)
def test_real_summaries(
    file: str, version: tuple[int, ...], device: str, qps: float, mean_ms: float, percents: set[int]
) -> None:
    found = read_log(ENGINES / file)
    assert (found.status, found.version, found.device, found.throughput_qps) == ("PASSED", version, device, qps)
    assert found.metrics["Latency"].mean_ms == mean_ms
    assert set(found.metrics["Latency"].percentiles_ms) == percents
    assert ("End-to-End Host Latency" in found.metrics) == (version < (8, 4))
    assert found.regime == (DEFAULTS_UP_TO_10 if version < (11,) else DEFAULTS_FROM_11)


@needs_engines
def test_a_build_without_a_measurement() -> None:
    found = read_log(ENGINES / "trtexec-logs" / "trt10.16.1.log")
    assert (found.built_s, found.engine_mib, found.throughput_qps) == (8.05109, 12.5765, None)
    assert found.sections["Build Options"]["Memory Pools"].startswith("workspace: default, dlaSRAM: default")


@needs_engines
def test_errors_are_kept() -> None:
    found = read_log(ENGINES / "trt11.0-mnist-b200" / "unknown-option.excerpt.log")
    assert "Unknown option: --fp16" in found.errors


@needs_engines
def test_what_trt_engine_explorer_made_of_a_log() -> None:
    found = read_log(ENGINES / "trt8-resnet18-a100" / "qat.profile.metadata.json")
    assert (found.throughput_qps, found.metrics["Latency"].median_ms) == (1130.01, 0.882568)
    assert found.metrics["Latency"].percentiles_ms == {99.0: 0.884766}
    assert found.regime == Regime(data_transfers=False, spin_wait=True, cuda_graph=True, separate_profile_run=True)
    device = read_log(ENGINES / "trt8-resnet18-a100" / "qat.metadata.json")
    assert device.device == "NVIDIA A100 80GB PCIe"


@pytest.mark.parametrize(
    ("version", "flags", "regime"),
    [
        ("v8601", "", DEFAULTS_UP_TO_10),
        ("v101601", "--useCudaGraph --useSpinWait --noDataTransfers --separateProfileRun", DEFAULTS_FROM_11),
        ("v110000", "", DEFAULTS_FROM_11),
        ("v110000", "--noCudaGraph --noSpinWait --includeDataTransfers", Regime(True, False, False, True)),
    ],
)
def test_the_regime_where_the_log_does_not_print_it(version: str, flags: str, regime: Regime) -> None:
    assert log(version=version, flags=flags).regime == regime


def test_what_the_log_prints_is_before_any_default() -> None:
    options = ("=== Inference Options ===", "Data transfers: Disabled", "Spin-wait: Enabled", "CUDA Graph: Enabled")
    assert log(*options).regime == Regime(False, True, True, None)


def test_a_log_that_ends_early_and_two_runs_in_one() -> None:
    first, second = "Throughput: 1 qps", "Throughput: 2 qps"
    summary = "=== Performance summary ==="
    assert log(summary, first).status == "RUNNING"
    run = "&&&& {} TensorRT.trtexec [TensorRT v8601] # trtexec {}\n"
    text = "".join(
        run.format("RUNNING", name) + f"{STAMP}{summary}\n{STAMP}{line}\n" + run.format("FAILED", name)
        for name, line in (("a", first), ("b", second))
    )
    found = parse_log(text, "log")
    assert (found.status, found.throughput_qps, found.command) == ("FAILED", 1, "trtexec a")


def test_every_run_of_a_log_is_read() -> None:
    one = "&&&& {} TensorRT.trtexec [TensorRT v8601] # trtexec --loadEngine={}"
    rate = f"{STAMP}=== Performance summary ===\n{STAMP}Throughput: {{}} qps"
    text = "\n".join([one.format("RUNNING", "a"), rate.format(1), one.format("FAILED", "a"), "between",
                      one.format("RUNNING", "b"), rate.format(2)])  # fmt: skip
    found = parse_runs(text, "log")
    assert [(run.status, run.throughput_qps, run.command[-1]) for run in found] == [
        ("FAILED", 1, "a"), ("RUNNING", 2, "b")
    ]  # fmt: skip
    assert found[0] == parse_log(text, "log")


@pytest.mark.parametrize("figure", ["nan", "inf", "1.2.3", "", "9" * 5000])
def test_figures_that_are_none(figure: str) -> None:
    line = f"Latency: min = 1 ms, max = 2 ms, mean = {figure} ms, median = 1 ms, percentile(1.2.3%) = 1 ms"
    found = log("=== Performance summary ===", f"Throughput: {figure} qps", line)
    assert found.throughput_qps is None
    assert found.metrics == {}


def test_windows_line_ends_and_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "log"
    text = f"&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec\r\n{STAMP}Selected Device: X\r\n"
    path.write_bytes(text.encode("utf-16"))
    assert read_log(path).sections[""]["Selected Device"] == "X"


@pytest.mark.parametrize("content", ["", "hello", "[]", "{}", '{"performance_summary": 3, "model_options": {}}'])
def test_other_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log"
    path.write_text(content)
    with pytest.raises(ModelError, match="log"):
        read_log(path)


@needs_engines
@pytest.mark.parametrize("version", ["10.14.1", "10.16.1"])
def test_the_table_in_a_log_is_the_exported_file_s(version: str) -> None:
    """trtexec printed the table and wrote the JSON of one engine: the same layers from both."""
    printed = layers.read(ENGINES / "trtexec-logs" / f"trt{version}.log")
    assert printed.source == f"TensorRT {version}"
    exported = layers.read(ENGINES / "trt10-mnist-h100" / f"trt{version}.layers.json")
    assert [one.name for one in printed.layers] == [one.name for one in exported.layers]
    if version == "10.16.1":  # the other file is of another run
        assert printed.layers == exported.layers
        assert printed.signals == exported.signals


@needs_engines
def test_the_table_of_names_in_a_log() -> None:
    found = layers.read(ENGINES / "trtexec-logs" / "trt8.6.0-verbose.log")
    assert (found.signals.layers, found.source) == (15, "TensorRT 8.6.0")
    assert found.layers[1].onnx_nodes == ("Conv-1", "ReLU-2")
    assert found.signals.conversions is None


def test_the_table_of_version_11_in_a_log(tmp_path: Path) -> None:
    table = Path(__file__).with_name("branches.table.txt").read_text(encoding="utf-8")
    path = tmp_path / "log"
    path.write_text(f"&&&& RUNNING TensorRT.trtexec [TensorRT v110000] # trtexec\n{STAMP}{table}", encoding="utf-8")
    found = layers.read(path)
    assert (found.origin, found.source, found.signals.layers) == ("measured", "TensorRT 11.0.0", 10)
    assert found.signals.double_writes is None
    assert found.signals.conversions is None


@pytest.mark.parametrize("end", [20, 60, 400])
def test_a_table_that_is_cut(tmp_path: Path, end: int) -> None:
    row = (
        "Name: a, LayerType: kgen, Inputs: [ { Name: x, Location: Device, Dimensions: [1,8], Format/Datatype: Int8 }], "
    )
    table = f"{STAMP}Layers:\n{row}Outputs: [], Metadata: [ONNX Layer: a]"[: len(STAMP) + end]
    path = tmp_path / "log"
    path.write_text(f"&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec\n{table}")
    with pytest.raises(ModelError, match="cut"):
        layers.read(path)
