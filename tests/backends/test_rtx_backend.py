"""TensorRT-RTX's builder itself, in its child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtq import backends, files, layers
from trtq.backends import BuildOptions, BuildSpec, building, dialects, rtx
from trtq.errors import BuildError, ConfigError, MissingBackendError, ModelError, OutputError

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")

CRASHER = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "onnx" / "crash_weight_scale_cast.onnx"
REPOSITORY = Path(__file__).resolve().parents[2]
DEEP_NODES = 3000


def save(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], output: str) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    """One quantized convolution."""
    scales = [
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    weight = numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, (8, 8, 3, 3), dtype=np.int8), "w")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="weight"),
        helper.make_node("Conv", ["d", "wd"], ["y"], name="conv", pads=[1] * 4),
    ]
    return save(tmp_path / "conv.onnx", nodes, [*scales, weight], "y")


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A chain that overflows the builder's stack at 8 MiB."""
    nodes = [
        helper.make_node(("Relu", "Sigmoid")[n % 2], [f"t{n}" if n else "x"], [f"t{n + 1}"], name=f"n{n}")
        for n in range(DEEP_NODES)
    ]
    return save(tmp_path / "deep.onnx", nodes, [], f"t{DEEP_NODES}")


def test_same_bytes_twice(conv: Path, tmp_path: Path) -> None:
    phases: list[tuple[str, int, int]] = []
    first = rtx.build(BuildSpec(conv), tmp_path / "1.plan", progress=lambda *step: phases.append(step))
    second = backends.builder("rtx").build(BuildSpec(conv), tmp_path / "2.plan")
    assert first.plan.read_bytes() == second.plan.read_bytes()
    assert first.plan_bytes == first.plan.stat().st_size > 0
    assert first.layers == second.layers
    assert phases
    assert all(0 <= step <= steps for _, step, steps in phases)
    assert 0 < first.build_s < 60
    assert 50 < (first.peak_memory_mib or 0) < 4000


def test_layers_come_from_the_log(conv: Path, tmp_path: Path) -> None:
    engine = rtx.build(BuildSpec(conv, ("sm86", "sm89")), tmp_path / "conv.plan")
    graph = engine.layers
    assert graph is not None
    assert layers.read(tmp_path / "conv.plan.log") == graph
    assert graph.onnx_sha256 == files.sha256(conv)
    assert graph.targets == ("sm86", "sm89")
    assert graph.source == f"TensorRT-RTX {trt.__version__}"
    assert graph.signals.int8_share == 1.0
    assert {name for layer in graph.layers for name in layer.onnx_nodes} == {"quantize", "dequantize", "weight", "conv"}


def test_targets_are_those_of_the_library() -> None:
    assert set(rtx.TARGETS) == {name.lower() for name in trt.ComputeCapability.__members__} - {"none", "current"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("sm_86",), "did you mean 'sm86'"),
        (("SM86",), "did you mean 'sm86'"),
        (("sm75", "sm86"), "sm75 cannot share"),
        (("sm86", "sm86"), "twice"),
        ((), "at least one target"),
    ],
)
def test_targets_that_cannot_be_built(conv: Path, tmp_path: Path, targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rtx.build(BuildSpec(conv, targets), tmp_path / "x.plan")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty file"), (b"hello", "not an ONNX file"), (None, "no such file"), ("cut", "truncated")],
)
def test_files_that_are_no_network(conv: Path, tmp_path: Path, content: bytes | str | None, message: str) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(conv.read_bytes()[:-40] if isinstance(content, str) else content)
    with pytest.raises(ModelError, match=message):
        rtx.build(BuildSpec(path), tmp_path / "x.plan")
    assert not list(tmp_path.glob("x.*"))


def test_invalid_network(tmp_path: Path) -> None:
    path = save(tmp_path / "bad.onnx", [helper.make_node("Relu", ["nowhere"], ["y"], name="r")], [], "y")
    with pytest.raises(ModelError, match=r"bad\.onnx: is not a valid ONNX file .*nowhere"):
        rtx.build(BuildSpec(path), tmp_path / "x.plan")


def test_refused_node_is_named(tmp_path: Path) -> None:
    zero = numpy_helper.from_array(np.array(3, np.int8), "z")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="shifted"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back"),
    ]
    path = save(tmp_path / "asymmetric.onnx", nodes, [zero, scale], "y")
    with pytest.raises(ModelError, match=r"node 'shifted' \(QuantizeLinear\): .*Non-zero zero point"):
        rtx.build(BuildSpec(path), tmp_path / "x.plan")
    assert sorted(file.name for file in tmp_path.glob("*x.plan*")) == ["x.plan.failed.log"]


def test_builder_that_refuses(tmp_path: Path) -> None:
    # Turing has no float32 matrix product in TensorRT-RTX.
    weight = numpy_helper.from_array(np.ones((16, 4), np.float32), "w")
    path = save(tmp_path / "gemm.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], [weight], "y")
    with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
        rtx.build(BuildSpec(path, ("sm75",)), tmp_path / "x.plan")


@pytest.mark.skipif(not CRASHER.parent.is_dir(), reason="the crashing network is not beside this checkout")
def test_crash_is_an_error_here(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"builder crashed \(SIG(ABRT|SEGV)\); its last words: \w+"):
        rtx.build(BuildSpec(CRASHER), tmp_path / "x.plan")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.plan.failed.log"]


@pytest.mark.slow
def test_deep_chain(deep: Path, tmp_path: Path) -> None:
    engine = rtx.build(BuildSpec(deep), tmp_path / "deep.plan")
    assert engine.plan_bytes > 0


def test_time_limit(deep: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"longer than 0\.6 s"):
        rtx.build(BuildSpec(deep, options=BuildOptions(timeout_s=0.6)), tmp_path / "x.plan")
    assert not [file for file in tmp_path.glob("*x.plan*") if file.name != "x.plan.failed.log"]


def test_failed_build_keeps_the_former_engine(conv: Path, tmp_path: Path) -> None:
    plan = tmp_path / "x.plan"
    rtx.build(BuildSpec(conv), plan)
    before = plan.read_bytes(), building.log_path(plan).read_bytes()
    with pytest.raises(BuildError):
        rtx.build(BuildSpec(conv, options=BuildOptions(timeout_s=0.01)), plan)
    assert (plan.read_bytes(), building.log_path(plan).read_bytes()) == before


def test_folder_that_cannot_be_written(conv: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        rtx.build(BuildSpec(conv), tmp_path / "file" / "x.plan")


def test_full_disk(conv: Path, tmp_path: Path) -> None:
    # A limit on file size, below the plan's, stands for the full disk.
    limit = rtx.build(BuildSpec(conv), tmp_path / "whole.plan").plan_bytes // 2
    script = (
        "import resource, sys; from pathlib import Path; from trtq.backends import BuildSpec, rtx\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "rtx.build(BuildSpec(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(conv), str(tmp_path / "x.plan")]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "OutputError" in ran.stderr
    assert not list(tmp_path.glob("*x.plan*"))


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the child through /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_builder_ends_with_its_parent(deep: Path, tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out"
    out.mkdir()
    script = (
        "import sys; from pathlib import Path; from trtq.backends import BuildSpec, rtx\n"
        "rtx.build(BuildSpec(Path(sys.argv[1])), Path(sys.argv[2]), progress=lambda *step: print(step, flush=True))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(deep), str(out / "x.plan")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline()
    (worker,) = children(parent.pid)
    parent.send_signal(how)
    assert parent.wait(10) != 0
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.stdout.close()
    assert not is_alive(worker)
    if how == signal.SIGINT:
        assert not list(out.iterdir())
        assert not list(tmp_path.glob("trtq-build-*"))
    assert not (out / "x.plan").exists()


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, conv: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(rtx, "trt", None)
    with pytest.raises(MissingBackendError, match=r"pip install trtq\[rtx\].*NVIDIA's own licence"):
        rtx.build(BuildSpec(conv), tmp_path / "x.plan")


def test_import_without_the_library() -> None:
    script = "import sys; sys.modules['tensorrt_rtx'] = None; from trtq.backends import rtx; rtx.version()"
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "MissingBackendError" in ran.stderr


def test_the_builder_never_sees_where_a_network_lies(conv: Path, tmp_path: Path) -> None:
    """FP16 plans of larger networks differ in a few bytes with the length of the path that is parsed."""
    plans = []
    for folder in (tmp_path / "a", tmp_path / ("long" * 30), tmp_path / "b" / "c"):
        folder.mkdir(parents=True)
        source = folder / conv.name
        source.write_bytes(conv.read_bytes())
        planned = building.plan_for(BuildSpec(source), dialects.detect(trt))
        request = building.request(planned, folder / "plan", folder, layers=False)
        [parse] = [one for one in map(json.dumps, request["parse"]) if "parse_from_file" in one]
        assert f'"{conv.name}"' in parse and str(folder) not in parse
        plans.append(rtx.build(BuildSpec(source), folder / "plan").plan.read_bytes())
    assert plans[0] == plans[1] == plans[2]
