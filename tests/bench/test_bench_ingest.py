"""Logs and times of trtexec as results; benchmarks/bench_logs checks every recorded file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtq.bench import compare, ingest
from trtq.errors import ModelError
from trtq.layers.source import read_source
from trtq.layers.trtexec_times import TIME_KEYS

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"
real = pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
LOG = """&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --loadEngine=e.plan {flags}
[01/02/2026-10:00:00] [I] === Inference Options ===
[01/02/2026-10:00:00] [I] Batch: Explicit
[01/02/2026-10:00:00] [I] Input inference shapes: image=8x3x4x4
[01/02/2026-10:00:00] [I] Duration: 3s (+ 500ms warm up)
[01/02/2026-10:00:00] [I] Inference Streams: 2
[01/02/2026-10:00:00] [I] Data transfers: Disabled
[01/02/2026-10:00:00] [I] Spin-wait: Enabled
[01/02/2026-10:00:00] [I] CUDA Graph: Enabled
[01/02/2026-10:00:00] [I] Separate profiling: Disabled
[01/02/2026-10:00:00] [I] === Device Information ===
[01/02/2026-10:00:00] [I] Selected Device: Orin
[01/02/2026-10:00:00] [I] Compute Capability: 8.7
[01/02/2026-10:00:00] [I] Application Compute Clock Rate: 1.3 GHz
[01/02/2026-10:00:00] [I] === Performance summary ===
[01/02/2026-10:00:00] [I] Throughput: 2000 qps
[01/02/2026-10:00:00] [I] Latency: min = 0.9 ms, max = 1.1 ms, mean = 1 ms, median = 1 ms, percentile(99%) = 1.1 ms
[01/02/2026-10:00:00] [I] Enqueue Time: min = 0.1 ms, max = 0.1 ms, mean = 0.1 ms, median = 0.1 ms
&&&& PASSED TensorRT.trtexec [TensorRT v{version}] # trtexec --loadEngine=e.plan {flags}
"""


def log(folder: Path, version: str = "101601", flags: str = "", name: str = "run.log") -> Path:
    path = folder / name
    path.write_text(LOG.format(version=version, flags=flags))
    return path


def times(folder: Path, name: str, *, warm_up_ms: float) -> Path:
    """Write 20 queries of 1 ms behind the warm-up, which took 2 ms each; two streams overlap."""
    early = [(10.0 * one, 2.0) for one in range(int(warm_up_ms / 10))]
    late = [(warm_up_ms + 0.5 * one, 1.0) for one in range(20)]
    rows = [
        {
            "startEnqMs": start, "endEnqMs": start + 0.125, "startH2dMs": start, "endD2hMs": start + long,
            "startComputeMs": start, "endComputeMs": start + long, "h2dMs": 0, "computeMs": long, "d2hMs": 0,
            "latencyMs": long,
        }
        for start, long in early + late
    ]  # fmt: skip
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


def test_a_log_tells_how_where_and_what(tmp_path: Path) -> None:
    found = ingest.read(log(tmp_path))
    assert (found.name, found.backend, found.dialect, found.batch) == ("run", "trtexec", "TensorRT 10.16.1", 8)
    assert (found.throughput_qps, found.median_us, found.p99_us, found.throughput_per_s) == (2000, 1000, 1100, 16000)
    assert found.part_us("enqueue") == 100
    assert found.machine == {"gpus": [{"name": "Orin", "sm": "sm87", "memory_mib": None}]}
    assert found.clocks == {"gpu_application_mhz": 1300.0}
    wanted = {"warm_up_ms": 500, "streams": 2, "cuda_graph": True, "spin_wait": True, "data_transfers": False}
    assert found.options.items() >= wanted.items() and found.options["profiled"] is False


def test_a_profile_taken_in_the_timed_run_is_told(tmp_path: Path) -> None:
    assert ingest.read(log(tmp_path, flags="--exportProfile=p.json")).options["profiled"] is True
    assert ingest.read(log(tmp_path, "110000", "--exportProfile=p.json")).options["profiled"] is False


def test_what_trtq_s_own_commands_leave_belongs_together(tmp_path: Path) -> None:
    log(tmp_path, name="e.plan.bench.log")
    (tmp_path / "e.plan.log").write_text("the builder's own")
    written = times(tmp_path, "e.plan.times.json", warm_up_ms=500)
    assert ingest.read(written) == ingest.read(tmp_path / "e.plan.bench.log")
    assert ingest.read(written).name == "e.plan" and ingest.read(written).dialect == "TensorRT 10.16.1"


@pytest.mark.parametrize("name", ["run.times.json", "named.json"])
def test_times_and_their_log_are_one_result_without_the_warm_up(tmp_path: Path, name: str) -> None:
    written = times(tmp_path, name, warm_up_ms=500)
    of_log = ingest.read(log(tmp_path, flags="" if name == "run.times.json" else f"--exportTimes=/there/{name}"))
    assert of_log.times_us == (1000.0,) * 20 and of_log.parts_us["enqueue"] == pytest.approx((125.0,) * 20)
    assert of_log.throughput_qps == pytest.approx(20 / 0.0105) and of_log.stated is not None
    if name == "run.times.json":
        assert ingest.read(written).times_us == of_log.times_us


def test_every_timed_run_of_a_log_counts(tmp_path: Path) -> None:
    build = LOG.format(version="101601", flags="").partition("[01/02/2026-10:00:00] [I] === Perf")[0]
    timed = [LOG.format(version="101601", flags=f"--exportTimes={name}.json") for name in "ab"]
    timed[1] = timed[1].replace("2000 qps", "1000 qps")
    path = tmp_path / "runs.log"
    path.write_text("\n".join([build, *timed]))
    (tmp_path / "runs.times.json").write_text("of which run?")
    found = ingest.results(read_source(path))
    assert [one.throughput_qps for one in found] == [2000, 1000] and found[0] == ingest.read(path)
    written = times(tmp_path, "b.json", warm_up_ms=500)
    assert [len(one.times_us) for one in ingest.results(read_source(path))] == [0, 20]
    path.rename(tmp_path / "b.log")
    found_by_times = ingest.read(written)
    assert found_by_times.stated is not None and found_by_times.stated.throughput_qps == 1000


def test_the_batch_is_of_the_input_where_no_shape_was_asked_for(tmp_path: Path) -> None:
    path = log(tmp_path)
    asked = path.read_text().replace("image=8x3x4x4", "model")
    path.write_text(asked)
    assert ingest.read(path).batch == 1
    stamp = "[01/02/2026-10:00:00] [I]"
    for line in ("Input binding for image with dimensions 16x3x4x4 is created.",
                 "Created input binding for image with dimensions 16x3x4x4"):  # fmt: skip
        path.write_text(asked.replace(f"{stamp} === Perf", f"{stamp} {line}\n{stamp} === Perf"))
        assert ingest.read(path).batch == 16
    path.write_text(path.read_text().replace("Batch: Explicit", "Batch: 4"))
    assert ingest.read(path).batch == 4


def test_times_alone_say_that_nothing_tells_how_they_were_taken(tmp_path: Path) -> None:
    found = ingest.read(times(tmp_path, "alone.times.json", warm_up_ms=200))
    assert len(found.times_us) == 20 and "no log lies beside" in found.notes[0]
    assert found.options["cuda_graph"] is None and found.machine == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "neither a log"),
        ("[{}]", "neither a log"),
        (LOG.format(version="8601", flags="").partition("[01/02/2026-10:00:00] [I] === Perf")[0], "measured nothing"),
        ('[{"Name": "A100", "ComputeCapability": [8, 0]}]', "describes a GPU"),
        (json.dumps([dict.fromkeys(TIME_KEYS, 1)]), "warm-up"),
    ],
)
def test_what_measured_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.log"
    path.write_text(text)
    with pytest.raises(ModelError, match=words):
        ingest.read(path)


@real
def test_recorded_times_give_the_summary_of_their_log() -> None:
    for name in ("fp32", "fp16", "qat", "qat-residual", "qat-residual-qgap"):
        found = ingest.read(ENGINES / "trt8-resnet18-a100" / f"{name}.timing.json")
        assert found.stated is not None and found.batch == 32
        assert found.throughput_qps == pytest.approx(found.stated.throughput_qps, rel=2e-5)
        for percent, stated in found.stated.percentiles_us.items():
            assert found.percentile_us(percent) == pytest.approx(stated, rel=1e-6)
        assert min(found.times_us) == pytest.approx(found.stated.min_us)
        assert max(found.times_us) == pytest.approx(found.stated.max_us)


@real
def test_recorded_engines_compare_as_published() -> None:
    folder = ENGINES / "trt8-resnet18-a100"
    fp16, qat, residual = (ingest.read(folder / f"{one}.timing.json") for one in ("fp16", "qat", "qat-residual"))
    assert compare(fp16, residual).verdict.value == "faster"
    assert compare(fp16, qat).verdict.value == "no difference shown"  # 2.3 %, of two runs apart
    assert compare(fp16, qat, margin=0.01).verdict.value == "slower"
