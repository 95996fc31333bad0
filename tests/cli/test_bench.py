"""`trtq bench`: real runs of ONNX Runtime, real logs of trtexec, and what is refused where no GPU is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.conftest import ROOT, check_trtq, run_trtq, sentences
from trtq.bench import BenchResult, BenchRun, store
from trtq.config import load_recipe

ENGINES = ROOT / ".." / "shared" / "data" / "engines"
real = pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
NETWORK = """<ir_version: 8, opset_import: ["": 17]> network (float[N, 3, 64, 64] image) => (float[N, 3, S, S] out)
<float[3, 3, K, K] w = {WEIGHTS}> { x = Conv(image, w) out = Relu(x) }"""
QUICK = ("--warm-up", "5", "--duration", "0.2", "--iterations", "30")


def write(path: Path, kernel: int) -> Path:
    """Write a network of one convolution, whose work grows with the square of its kernel."""
    weights = ", ".join(["0.1"] * (9 * kernel * kernel))
    text = NETWORK.replace("K, K", f"{kernel}, {kernel}").replace("S, S", f"{65 - kernel}, {65 - kernel}")
    onnx.save(onnx.parser.parse_model(text.replace("WEIGHTS", weights)), path)
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    folder = tmp_path_factory.mktemp("networks")
    return write(folder / "small.onnx", 1), write(folder / "large.onnx", 15)


def test_engines_run_in_turn_and_the_slower_one_is_told(networks: tuple[Path, Path], tmp_path: Path) -> None:
    target, layers = tmp_path / "run.json", tmp_path / "layers"
    options = (*QUICK, "--batch", "2", "-o", target, "--profile", layers)
    document = json.loads(check_trtq("bench", *networks, *options, "--json"))
    assert [one["name"] for one in document["results"]] == ["small", "large"]
    assert [one["batch"] for one in document["results"]] == [2, 2]
    (pair,) = document["pairs"]
    assert (pair["verdict"], pair["paired"]) == ("slower", True) and pair["low"] > 2
    assert document["results"][0]["intervals"]["p50_us"][0] <= document["results"][0]["figures"]["p50_us"]
    assert len(document["readings"]) >= 2 and document["readings"][0]["load_average"] >= 0
    assert "a GPU's differ" in document["results"][0]["notes"][0]
    assert "slower by a factor of " in check_trtq("bench", target)
    run = store.load(target)
    assert len(run.results[0].times_us) >= 30 and len(run.results[0].rounds) == len(run.results[1].rounds) >= 10
    measured = json.loads(check_trtq("layers", layers / "large.layers.json", "--json"))
    assert measured["origin"] == "measured" and measured["time_us"] > 0
    assert "aligned" in check_trtq("diff", layers / "small.layers.json", layers / "large.layers.json")
    assert run_trtq("bench", networks[1], *QUICK, "--profile", layers).returncode == 5
    again = run_trtq("bench", networks[0], *QUICK, "-o", target)
    assert again.returncode == 5 and "overwrites nothing" in sentences(again.stderr)[-1]
    assert store.load(target) == run
    assert "no difference shown" in check_trtq("bench", target, target)


def test_pictures_and_threads_are_taken(networks: tuple[Path, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 3, 64, 64), np.float32))
    options = ("--images", tmp_path / "images.npy", "--batch", "3", "--threads", "2")
    document = json.loads(check_trtq("bench", networks[0], *QUICK, *options, "--json"))
    (one,) = document["results"]
    assert one["options"]["input"] == "images of images.npy" and one["options"]["threads"] == 2
    few = run_trtq("bench", networks[0], *QUICK, "--images", tmp_path / "images.npy", "--batch", "4")
    assert few.returncode == 2 and "fewer than the 4 images" in sentences(few.stderr)[-1]


def test_a_name_that_looks_like_markup_is_printed_as_it_is(networks: tuple[Path, Path], tmp_path: Path) -> None:
    paths = [shutil.copy(networks[0], tmp_path / name) for name in ("[bold]a.onnx", "<b>.onnx", ":cat:.onnx")]
    printed = check_trtq("bench", *paths, "--warm-up", "0", "--duration", "0", "--iterations", "10")
    for name in ("[bold]a", "<b>", ":cat:"):
        assert printed.count(name) >= 3, printed


@real
def test_what_is_of_engines_alone_is_refused_for_results() -> None:
    done = run_trtq("bench", ENGINES / "trtexec-logs" / "trt8.0.3.txt", "--profile", "layers")
    assert done.returncode == 2 and "--profile is of engines" in sentences(done.stderr)[0]


@real
def test_logs_and_times_stand_beside_each_other() -> None:
    a100, logs = ENGINES / "trt8-resnet18-a100", ENGINES / "trtexec-logs"
    paths = (a100 / "fp16.timing.json", a100 / "qat-residual.timing.json", logs / "trt8.6.0-verbose.log")
    document = json.loads(check_trtq("bench", *paths, "--json"))
    assert [round(one["figures"]["throughput_qps"], 2) for one in document["results"]] == [1155.36, 1823.37, 20565.7]
    verdicts = [one["verdict"] for one in document["pairs"]]
    assert verdicts == ["faster", "not comparable", "not comparable"]
    reasons = " ".join(document["pairs"][1]["reasons"])
    for word in ("batches of 32 and 4", "NVIDIA A100 80GB PCIe and NVIDIA GeForce RTX 3090", "cuda graph on and off"):
        assert word in reasons
    printed = check_trtq("bench", *paths)
    assert "measured apart" in printed and "861.2–862.3" in printed


def stored(recipe: Path, when: str, factor: float, cpu: str = "x") -> None:
    times = tuple((500 * factor * np.random.default_rng(int(when[6:8])).lognormal(0, 0.02, 500)).tolist())
    results = tuple(BenchResult(mode, "ort", 1, times, machine={"cpu": cpu}, run=when) for mode in ("fp32", "qat"))
    results = (replace(results[0], times_us=tuple(one / factor for one in times)), results[1])
    store.save(BenchRun(when, results, recipe.stem), recipe.with_suffix("") / "bench" / f"{when}.json")


def test_history_tells_a_regression_by_its_exit_code(tmp_path: Path) -> None:
    recipe = tmp_path / "net.toml"
    shutil.copy(ROOT / "engines" / "mobilenet_v2-digits.toml", recipe)
    assert load_recipe(recipe).folder == tmp_path / "net"
    nothing = run_trtq("bench", "--history", recipe)
    assert nothing.returncode == 2 and "holds no benchmark yet" in sentences(nothing.stderr)[0]
    stored(recipe, "20260101T120000Z", 1.0)
    stored(recipe, "20260102T120000Z", 1.02)
    assert "no difference shown" in check_trtq("bench", "--history", recipe)
    stored(recipe, "20260103T120000Z", 1.5, cpu="another")
    assert "not comparable" in check_trtq("bench", "--history", recipe)
    stored(recipe, "20260104T120000Z", 1.2)
    worse = run_trtq("bench", "--history", recipe)
    assert worse.returncode == 1
    assert worse.stderr == "regression: qat (ort) of 20260104T120000Z is slower than the run before\n"
    assert check_trtq("bench", "--history", recipe, "--margin", "25")
    document = json.loads(check_trtq("bench", "--history", recipe, "--json", code=1))
    assert document["regressions"] == 1 and len(document["runs"]) == 8


def test_a_plan_is_refused_in_one_sentence_where_no_gpu_is(networks: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    check_trtq(
        "build", write(tmp_path / "net.onnx", 3), "--backend", "rtx", "--shapes", "image=1x3x64x64,2x3x64x64,4x3x64x64"
    )
    plan = tmp_path / "net" / "engine.rtx.plan"
    done = run_trtq("bench", plan)
    if done.returncode == 0:
        pytest.skip("a GPU is here")
    assert done.returncode in (2, 3) and len(sentences(done.stderr)) == 1, done.stderr
    assert "GPU" in done.stderr
    mixed = run_trtq("bench", plan, networks[0])
    assert mixed.returncode == 2 and "not comparable" in sentences(mixed.stderr)[0]
    other = run_trtq("bench", plan, "--backend", "trtexec")
    assert other.returncode == 2 and "is an engine of 'rtx'" in sentences(other.stderr)[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.plan",), 2, "no such engine"),
        (("missing.log",), 2, "cannot be read"),
        ((str(ROOT / "benchmarks" / "results" / "suite.json"),), 2, "is JSON, but neither a run"),
        (("NETWORK", "--backend", "rtx"), 2, "ONNX file"),
        (("NETWORK", "--backend", "rxt"), 2, "did you mean 'rtx'"),
        (("NETWORK", "--mode", "qat"), 2, "--mode is for a recipe"),
        (("NETWORK", "--iterations", "0"), 2, "at least 1"),
        (("NETWORK", "--streams", "2"), 2, "several streams are for a GPU"),
        (("NETWORK", "--cpu-time", "--threads", "2"), 2, "of one thread"),
        (("NETWORK", "--history"), 2, "name its .toml file"),
        (("NETWORK", "--margin", "-1"), 2, "percentage"),
        (("NETWORK", "--seed", "-1"), 2, "seed is -1; it must be at least 0"),
        (("NETWORK", "--threads", "100000"), 2, "no more than 1024"),
        (("NETWORK", "-o", "NETWORK/run.json"), 5, "cannot write here"),
        (("NETWORK", "--profile", "NETWORK/layers"), 5, "cannot write here"),
        (("NETWORK", "--dry-run"), 2, "is no engine"),
        (("e.plan", "--dry-run", "--batch", "2"), 2, "--batch needs an engine's inputs"),
        (("e.plan", "--dry-run", "--images", "x"), 2, "--images does not go with --dry-run"),
        (("net.toml", "--history", "--mode", "qat"), 2, "--mode does not go with --history"),
        (("net.toml", "--history", "--dry-run"), 2, "--dry-run does not go with --history"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    networks: tuple[Path, Path], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run_trtq("bench", *(one.replace("NETWORK", str(networks[0])) for one in arguments))
    assert done.returncode == code and words in sentences(done.stderr)[0] and len(sentences(done.stderr)) == 1


def test_one_measurement_is_stated_for_every_dialect() -> None:
    reference = json.loads(check_trtq("bench", "e.plan", "--dry-run", "--json"))["e.plan"]
    exports = "--exportTimes=e.plan.times.json --exportProfile=e.plan.profile.json --exportLayerInfo=e.plan.layers.json"
    older = "trtexec --loadEngine=e.plan --useCudaGraph --useSpinWait --noDataTransfers --separateProfileRun"
    common = "--warmUp=500 --duration=10 --profilingVerbosity=detailed"
    for version in ("8.5", "8.6", "10.3", "10.16"):
        assert reference[f"TensorRT {version}"] == f"{older} {common} {exports}"
    assert reference["TensorRT 11.4"] == f"trtexec --loadEngine=e.plan {common} {exports}"
    assert reference["TensorRT-RTX"] == f"tensorrt_rtx --loadEngine=e.plan {common} --dumpProfile --dumpLayerInfo"
    words = ("--noCudaGraph", "--noSpinWait", "--includeDataTransfers", "--infStreams", "2", "--iterations", "50")
    turned = json.loads(check_trtq("bench", "e.plan", "--dry-run", "--json", *words))["e.plan"]
    rest = f"--warmUp=500 --duration=10 --iterations=50 --infStreams=2 --profilingVerbosity=detailed {exports}"
    assert turned["TensorRT 8.6"] == f"trtexec --loadEngine=e.plan --separateProfileRun {rest}"
    assert turned["TensorRT 8.5"] == turned["TensorRT 8.6"].replace("--infStreams", "--streams")
    switches = "--noCudaGraph --noSpinWait --includeDataTransfers"
    assert turned["TensorRT 11.4"] == f"trtexec --loadEngine=e.plan {switches} {rest}"
    assert turned["TensorRT-RTX"].startswith("# whether tensorrt_rtx runs several streams")
