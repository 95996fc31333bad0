"""The runtime half that TensorRT and TensorRT-RTX share: each version's names alone, memory given back, sentences."""

import gc
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.backends import strict_vendor
from tests.backends.strict_vendor import RTX, VERSIONS, Cuda, Module
from trtq import backends
from trtq.backends import BuildSpec, loading, manifest, rtx_runner, runtime
from trtq.backends import rtx as rtx_backend
from trtq.backends.cuda import Cuda as CudaProtocol
from trtq.errors import ConfigError, MissingBackendError, ModelError

pytestmark = pytest.mark.skipif(not strict_vendor.API.is_dir(), reason="the API tables of TensorRT's wheels are absent")
RELU = '<ir_version: 8, opset_import: ["": 17]> small (float[1, 3] x) => (float[1, 3] y) { y = Relu(x) }'
IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(b"plan")
    return path


def load(plan: Path, version: str = RTX, options: runtime.RunOptions = runtime.PLAIN, **behaviour: Any) -> Any:
    return runtime.load_plan(Module(version, **behaviour), plan, options=options, cuda=Cuda())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_touches_only_names_that_the_version_has(plan: Path, version: str) -> None:
    with load(plan, version) as session:
        assert session.inputs[0].dims == (-1, 3) and session.outputs[0].dtype == "float32"
        for batch in (2, 8, 1):
            images = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
            np.testing.assert_array_equal(session.run({"image": images})["doubled"], images * 2)
        with session.prepare({"image": IMAGES}, cuda_graph=True, transfers=True) as launch:
            assert launch.warm_up(0.0) == 1
            times = launch.time(iterations=5)
        assert times.compute_us == (7.0,) * 5 and times.to_device_us == (2.0,) * 5 and times.to_host_us == (3.0,) * 5
        assert len(times.enqueue_us) == 5 and min(times.enqueue_us) > 0
        profile = session.profile({"image": IMAGES}, iterations=3)
        assert [one.times_us for one in profile] == [(500.0,) * 3, (1500.0,) * 3]  # without the first, which compiles
        layers = session.layers(profile)
        assert [layer.time_us for layer in layers.layers] == [500.0, 1500.0]
        assert layers.origin == "measured" and layers.targets == ("sm87",) and version in layers.source
    assert "IExecutionContext.execute_async_v3" in session._module.touched
    assert session.cuda.memory == {}


def test_memory_grows_with_the_shape_and_the_old_one_is_given_back(plan: Path) -> None:
    with load(plan) as session:
        for batch in (2, 8, 1):
            session.run({"image": np.zeros((batch, 3), np.float32)})
            assert len(session.cuda.memory) == 5  # a stream, and two tensors on both sides
        assert sum(one.nbytes for one in session.cuda.memory.values() if isinstance(one, np.ndarray)) == 4 * 8 * 3 * 4


def test_a_network_of_fixed_shape_is_never_told_one(plan: Path) -> None:
    with load(plan, shape=(2, 3)) as session:
        np.testing.assert_array_equal(session.run({"image": IMAGES})["doubled"], IMAGES * 2)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_two_runs_are_in_flight_and_a_graph_is_enqueued_once(plan: Path, cuda_graph: bool) -> None:
    with load(plan) as session, session.prepare({"image": IMAGES}, cuda_graph=cuda_graph) as launch:
        session.cuda.deepest = 0
        times = launch.time(iterations=20)
        assert times.compute_us == (7.0,) * 20 and times.to_device_us == times.to_host_us == ()
        assert session.cuda.deepest == 2 * 3  # an event, the run, an event
        (context,) = session._module._network.contexts
        assert context.enqueued == (2 if cuda_graph else 21)


def test_streams_overlap_each_with_a_context_and_memory_of_its_own(plan: Path) -> None:
    with load(plan) as session:
        with session.prepare({"image": IMAGES}, streams=3, transfers=True) as launch:
            contexts = session._module._network.contexts
            assert len(contexts) == 3 and len({one.addresses["image"] for one in contexts}) == 3
            session.cuda.deepest = 0
            times = launch.time(iterations=12)
            assert [one.enqueued for one in contexts] == [5, 5, 5]  # the first of each ends all compiling
            assert session.cuda.deepest > 2 * 2 * 5
        assert times.compute_us == (7.0,) * 12 and len(session.cuda.memory) == 5
    assert session.cuda.memory == {}


def test_streams_that_one_shape_profile_does_not_allow_are_refused_in_the_vendor_s_words(plan: Path) -> None:
    with (
        load(plan, "8.6.1") as session,
        pytest.raises(ModelError, match=r"8\.6\.1 does not take \[2, 3\] for 'image': Profile 0 has been chosen"),
        session.prepare({"image": IMAGES}, streams=2),
    ):
        pass
    assert session.cuda.memory == {}
    with load(plan, "8.6.1", shape=(2, 3)) as session, session.prepare({"image": IMAGES}, streams=2) as launch:
        assert launch.time(iterations=4).compute_us == (7.0,) * 4


def test_timing_goes_on_until_both_limits_are_reached(plan: Path) -> None:
    with load(plan) as session, session.prepare({"image": IMAGES}) as launch:
        times = launch.time(iterations=2, duration_s=0.05)
    assert len(times.compute_us) > 2 and times.wall_s >= 0.05


@pytest.mark.parametrize(
    ("version", "words"),
    [(RTX, "cannot capture it as a CUDA graph"), ("10.3.0", "cannot run it: .*; it runs without a CUDA graph, so")],
)
def test_what_cannot_be_captured_says_so(plan: Path, version: str, words: str) -> None:
    with (
        load(plan, version, capturable=False) as session,
        pytest.raises(ModelError, match=words),
        session.prepare({"image": IMAGES}, cuda_graph=True),
    ):
        pass


def test_the_tables_can_refuse() -> None:
    engine = Module("10.3.0").Runtime(loading.log_of(Module("10.3.0"))).deserialize_cuda_engine(b"")
    assert hasattr(engine, "num_io_tensors") and not hasattr(engine, "num_bindings")
    assert hasattr(Module("8.6.1"), "Runtime") and not hasattr(Module("11.4.0.106"), "CudaGraphStrategy")
    with pytest.raises(AttributeError, match=r"ICudaEngine of 10\.3\.0 has no device_memory"):
        engine.device_memory = 1


@pytest.mark.parametrize("version", VERSIONS)
def test_options_of_rtx_are_refused_elsewhere(plan: Path, version: str, tmp_path: Path) -> None:
    options = runtime.RunOptions(tmp_path / "kernels.cache", built_in_graph=True, specialization="eager")
    if version != RTX:
        with pytest.raises(ConfigError, match=r"TensorRT .* has no runtime cache"):
            load(plan, version, options)
        return
    for expected in (b"kernels", b"kernels+"):
        with load(plan, version, options) as session:
            session.run({"image": IMAGES})
            session.profile({"image": IMAGES}, iterations=1)
        running, profiling, again = session._module._network.configs
        assert again.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE" and again.cache is running.cache
        assert running.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE" and profiling.cuda_graph_strategy is None
        assert running.cache is profiling.cache is not None
        assert running.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        assert options.runtime_cache and options.runtime_cache.read_bytes() == expected


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"dtype": "FP8"}, "'image' is FP8, which NumPy cannot hold"),
        ({"location": "HOST"}, "'image' holds a shape, not data"),
        ({"vectorized": 1}, "'image' has a vectorized format"),
        ({"refuses": "Serialization assertion failed"}, r"TensorRT 10.16.1.11 does not take it: Serialization assert"),
    ],
)
def test_engines_that_cannot_be_run_are_refused_when_loaded(plan: Path, behaviour: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(plan, "10.16.1.11", **behaviour)


def test_the_refusal_says_what_the_runtime_thinks_of_the_plan(plan: Path) -> None:
    with pytest.raises(
        ModelError, match=r"does not take it \(unsupported cc\): no kernel for SM90; build it with this"
    ):
        load(plan, RTX, refuses="no kernel for SM90")


@pytest.mark.parametrize("words", ["(cudaError 35: too old)", "CUDA initialization failure with error: 35"])
def test_a_missing_driver_is_not_the_plans_fault(plan: Path, words: str) -> None:
    with pytest.raises(MissingBackendError, match="needs an NVIDIA GPU and its driver"):
        load(plan, "8.6.1", refuses=words)


def test_feeds_outside_of_the_profile_are_refused_and_the_session_goes_on(plan: Path) -> None:
    with load(plan) as session:
        with pytest.raises(ModelError, match=r"takes shapes from \[1, 3\] to \[8, 3\], but was given \[9, 3\]"):
            session.run({"image": np.zeros((9, 3), np.float32)})
        with pytest.raises(ModelError, match=r"takes float32 \[-1, 3\], but was given float64 \[2, 3\]"):
            session.run({"image": IMAGES.astype(np.float64)})
        np.testing.assert_array_equal(session.run({"image": IMAGES})["doubled"], IMAGES * 2)


def test_an_output_whose_shape_depends_on_data_is_refused(plan: Path) -> None:
    with load(plan, output=(-1, 3)) as session, pytest.raises(ModelError, match="output 'doubled' depends on the data"):
        session.run({"image": IMAGES})


def test_everything_is_given_back_after_a_failure_and_with_the_last_reference(plan: Path) -> None:
    session = load(plan)
    cuda = session.cuda
    cuda.fails = True
    with pytest.raises(ModelError, match="illegal memory access"), session.prepare({"image": IMAGES}):
        pass
    cuda.fails = False
    del session
    gc.collect()
    assert cuda.memory == {}


def test_a_run_that_the_vendor_refuses_names_the_engine(plan: Path) -> None:
    words = r"engine\.plan: TensorRT-RTX 1\.7\.1\.116 cannot run it"
    with load(plan, runs=False) as session, pytest.raises(ModelError, match=words):
        session.run({"image": IMAGES})


def test_a_profile_of_another_engine_is_refused(plan: Path) -> None:
    with load(plan, names=("other",)) as session, pytest.raises(ModelError, match="names none of the engine's layers"):
        session.layers(session.profile({"image": IMAGES}, iterations=1))


def test_results_are_the_callers_own(plan: Path) -> None:
    with load(plan) as session:
        first = session.run({"image": IMAGES})["doubled"]
        session.run({"image": IMAGES + 1})
        np.testing.assert_array_equal(first, IMAGES * 2)


@pytest.mark.parametrize("iterations", [0, -1])
def test_timing_nothing_is_refused(plan: Path, iterations: int) -> None:
    with (
        load(plan) as session,
        session.prepare({"image": IMAGES}) as launch,
        pytest.raises(ConfigError, match="at least one iteration"),
    ):
        launch.time(iterations=iterations)


def test_the_strict_cuda_is_the_one_that_the_runtime_wants() -> None:
    for name, method in inspect.getmembers(CudaProtocol, inspect.isfunction):
        if not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters)
            assert len(inspect.signature(getattr(Cuda, name)).parameters) == len(wanted), name


@pytest.fixture(scope="module")
def rtx() -> Any:
    trt = pytest.importorskip("tensorrt_rtx")
    code = "from trtq.backends.cuda import open_cuda; open_cuda()"
    if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0:
        pytest.skip("there is a GPU here; this is what happens without one")
    return trt


def test_the_installed_library_refuses_junk(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "junk.plan"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(ModelError, match=r"TensorRT-RTX [0-9.]+ does not take it \(malformed engine\): .*magicTag"):
        runtime.load_plan(rtx, path)
    assert loading.validity(rtx, path) == loading.Validity("invalid", ("malformed engine",))


def test_the_installed_library_says_that_it_needs_a_driver(rtx: Any, tmp_path: Path) -> None:
    built = tmp_path / "engine.plan"
    model = tmp_path / "relu.onnx"
    onnx.save(onnx.parser.parse_model(RELU), model)
    rtx_backend.build(BuildSpec(model), built)
    assert loading.validity(rtx, built) == loading.Validity("invalid", ())
    with pytest.raises(MissingBackendError) as caught:
        runtime.load_plan(rtx, built)
    assert str(caught.value) == (
        f"{built}: TensorRT-RTX {rtx.__version__} needs an NVIDIA GPU and its driver to run an engine, and finds none "
        "here (cudaError 35); run it on the machine that it is for"
    )


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), (b"", "is an empty file")])
def test_no_plan_at_all(rtx: Any, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "engine.plan"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        runtime.load_plan(rtx, path)


def test_every_touched_name_exists_in_the_installed_library(rtx: Any, plan: Path) -> None:
    options = runtime.RunOptions(plan.with_suffix(".cache"), built_in_graph=True, specialization="lazy")
    with load(plan, RTX, options) as session:
        session.run({"image": IMAGES})
        session.layers(session.profile({"image": IMAGES}, iterations=1))
    touched = session._module.touched
    assert len(touched) > 30
    for name in touched:
        owner: Any = rtx
        for part in name.split("."):
            owner = getattr(owner, part)


def test_an_engine_without_a_manifest_never_reaches_the_library(plan: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(ModelError, match="has no manifest"):
        rtx_runner.load(plan)


def test_the_snippets_of_the_page_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "running.md"
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 2
    (tmp_path / "engine.rtx.plan").write_bytes(b"plan")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rtx_backend, "trt", Module(RTX))
    monkeypatch.setattr(manifest, "check_loadable", lambda plan, machine, **facts: facts)
    monkeypatch.setattr(runtime, "open_cuda", Cuda)
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(snippet, names)
        assert not names["session"].cuda.memory
    assert (tmp_path / "kernels.cache").read_bytes() == b"kernels"


@pytest.mark.parametrize(("name", "version"), [("rtx", RTX), ("trt", "10.3.0"), ("trt", "8.6.1")])
def test_a_runner_asks_the_manifest_before_the_library(
    monkeypatch: pytest.MonkeyPatch, plan: Path, name: str, version: str
) -> None:
    runner: Any = backends.runner(name)
    module = Module(version)
    monkeypatch.setattr(backends.builder(name), "trt", module)
    monkeypatch.setattr(runtime, "open_cuda", Cuda)
    with pytest.raises(ModelError, match="has no manifest"):
        runner.load(plan)
    assert not module.touched & {"Runtime", "ILogger"}
    asked: list[Any] = []
    monkeypatch.setattr(runner.manifest, "check_loadable", lambda *given, **facts: asked.append(facts))
    with runner.load(plan, threads=4) as session:
        np.testing.assert_array_equal(session.run({"image": IMAGES})["doubled"], IMAGES * 2)
    assert asked == [{"backend": name, "version": version}] and not runner.RUNS_WITHOUT_GPU
