"""The TensorRT back end where TensorRT is not: what it says, and its parent's half around TensorRT-RTX's builder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.backends.test_planner import network
from tests.installed import HAS_TRT
from trtq import backends
from trtq.backends import BuildOptions, BuildSpec, building, trt
from trtq.backends.building import LAYERS_NAME
from trtq.backends.child import Outcome
from trtq.backends.dialects import DIALECTS
from trtq.errors import ConfigError, MissingBackendError, ModelError

without = pytest.mark.skipif(HAS_TRT, reason="TensorRT is installed")


@without
def test_what_is_missing_is_said_with_where_it_is(tmp_path: Path) -> None:
    for ask in (trt.version, trt.dialect, lambda: backends.builder("trt").build(BuildSpec(tmp_path), tmp_path / "p")):
        with pytest.raises(MissingBackendError, match=r"JetPack.* nvcr\.io/nvidia/tensorrt.* --backend trtexec"):
            ask()
    assert not trt.HAS_IMPLICIT_PTQ


@pytest.fixture
def renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX under TensorRT's name: the one vendor's builder that runs without a GPU."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install trtq[rtx])")
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "tensorrt.py").write_text("from tensorrt_rtx import *\nfrom tensorrt_rtx import __version__\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(trt, "trt", rtx)


@without
def test_a_build_goes_through_its_own_worker(renamed: None, tmp_path: Path) -> None:
    spec = BuildSpec(network(tmp_path / "n.onnx", quantized="int8"), ("sm86",))
    # The engine is built, and nothing here can load it: that a layer table is missing is not hidden.
    with pytest.raises(ModelError, match="built an engine and then could not load it"):
        trt.build(spec, tmp_path / "n.plan")
    assert not (tmp_path / "n.plan").exists()
    assert (tmp_path / "n.plan.failed.log").stat().st_size


@without
def test_a_refused_network_is_one_sentence(renamed: None, tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", dynamic=True)
    with pytest.raises(Exception, match=r"n\.onnx: TensorRT cannot build it: .*profile"):
        trt.build(BuildSpec(path, ("sm86",), "fp32"), tmp_path / "n.plan")


@without
def test_an_option_is_refused_before_the_worker_starts(renamed: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no DLA"):
        trt.build(
            BuildSpec(network(tmp_path / "n.onnx"), ("sm86",), "fp16", BuildOptions(dla_core=0)), tmp_path / "n.plan"
        )


def test_layers_and_caches_are_kept(tmp_path: Path) -> None:
    path, plan, scratch = network(tmp_path / "n.onnx"), tmp_path / "n.plan", tmp_path / "scratch"
    scratch.mkdir()
    spec = BuildSpec(path, (), "fp32", BuildOptions(timing_cache=tmp_path / "t.cache"))
    planned = building.plan_for(spec, DIALECTS["trt8.6"])
    tensor = {"Name": "x", "Dimensions": [1, 3, 16, 16], "Format/Datatype": "Row major linear FP32"}
    row = {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor]}
    (scratch / LAYERS_NAME).write_text(json.dumps({"Layers": [row], "Bindings": ["x", "y"]}))
    (scratch / building.TIMING_CACHE_NAME).write_bytes(b"timings")
    (scratch / building.CALIBRATION_NAME).write_bytes(b"ranges")
    graph = trt._layers(planned, scratch / LAYERS_NAME)
    assert (graph.origin, graph.source, len(graph.layers)) == ("measured", "TensorRT 8.6", 1)
    assert graph.onnx_sha256
    trt._keep(spec, plan, scratch)
    assert (tmp_path / "t.cache").read_bytes() == b"timings"
    assert (tmp_path / "n.plan.calibration.cache").read_bytes() == b"ranges"


def test_a_dla_core_that_is_not_there_is_said(tmp_path: Path) -> None:
    spec = BuildSpec(network(tmp_path / "n.onnx"), (), "fp16", BuildOptions(dla_core=1))
    planned = building.plan_for(spec, DIALECTS["trt8.6"])
    with pytest.raises(Exception, match="asks for DLA core 1, and TensorRT finds 0 here; leave dla_core out"):
        building.built(Outcome({"dla_cores": 0}, ()), planned, trt.VENDOR)
