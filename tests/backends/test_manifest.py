"""The manifest beside an engine: what makes it current, and which engines are refused before they are loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from trtq import files
from trtq.backends import BuildOptions, BuildSpec, Engine, manifest
from trtq.errors import ModelError
from trtq.machine import Gpu, Machine, machine

NETWORK = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
A4000 = Gpu("NVIDIA RTX A4000", "sm86", 16376)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    onnx.save(parser.parse_model(NETWORK), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def here() -> Machine:
    return replace(machine(), gpus=(A4000,), driver="570.1", cuda="12.8")


def engine(plan: Path, content: bytes = b"a plan") -> Engine:
    plan.write_bytes(content)
    return Engine("rtx", "1.7", plan, ("sm86",), len(content), 1.5, 200.0, None)


def written(network: Path, here: Machine, device: str | None = None, **changes: Any) -> Path:
    plan = network.with_name("engine.rtx.plan")
    spec = BuildSpec(network, ("sm86",), "fp32")
    identity = manifest.identify(spec, "rtx", "1.7", device=device)
    manifest.write(replace(identity, **changes), engine(plan), spec, here, {"backend": "rtx"})
    return plan


def test_what_is_written_is_read(network: Path, here: Machine) -> None:
    plan = written(network, here)
    found = manifest.read(plan)
    assert found.identity.inputs == {"onnx": files.sha256(network)}
    assert (found.cuda, found.driver, found.plan_bytes, found.build_s) == ("12.8", "570.1", 6, 1.5)
    assert found.onnx_sha256 == files.sha256(network)
    assert json.loads(manifest.path_of(plan).read_text())["identity"]["targets"] == ["sm86"]


def test_current_means_equal_inputs_options_and_bytes(network: Path, here: Machine) -> None:
    plan = written(network, here)
    spec = BuildSpec(network, ("sm86",), "fp32")

    def current(spec: BuildSpec = spec, version: str = "1.7") -> bool:
        return manifest.is_current(plan, manifest.identify(spec, "rtx", version))

    assert current()
    assert current(replace(spec, options=BuildOptions(timeout_s=5, memory_limit_mib=9)))
    assert not current(version="1.8")
    assert not current(replace(spec, targets=("sm86", "sm89")))
    assert not current(replace(spec, mode="fp16"))
    assert not current(replace(spec, options=BuildOptions(level=5)))
    plan.write_bytes(b"A plan")
    assert not current()
    plan.unlink()
    assert not current()


def test_a_changed_network_or_its_weights_make_an_engine_stale(network: Path) -> None:
    model = onnx.load(network)
    weight = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(weight)
    onnx.save(model, network)
    (network.parent / "weights.bin").write_bytes(bytes(16))
    one = manifest.identify(BuildSpec(network), "rtx", "1.7")
    (network.parent / "weights.bin").write_bytes(b"x" * 16)
    other = manifest.identify(BuildSpec(network), "rtx", "1.7")
    assert one.inputs["onnx"] == other.inputs["onnx"]
    assert one.inputs["onnx:weights.bin"] != other.inputs["onnx:weights.bin"]


def test_calibration_and_recipe_are_hashed(network: Path, tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "0.npy").write_bytes(b"1")
    (tmp_path / "r.toml").write_text("")
    spec = BuildSpec(network, calibration_batches=tmp_path / "batches")
    one = manifest.identify(spec, "rtx", "1.7", recipe=tmp_path / "r.toml")
    (tmp_path / "batches" / "0.npy").rename(tmp_path / "batches" / "1.npy")
    other = manifest.identify(spec, "rtx", "1.7", recipe=tmp_path / "r.toml")
    assert set(one.inputs) == {"onnx", "calibration", "recipe"}
    assert one.inputs["calibration"] != other.inputs["calibration"]


def test_an_engine_of_this_machine_may_be_loaded(network: Path, here: Machine) -> None:
    plan = written(network, here, device=A4000.name)
    assert manifest.check_loadable(plan, here, backend="rtx", version="1.7").identity.device == A4000.name


@pytest.mark.parametrize(
    ("gpus", "changes", "says"),
    [
        ((Gpu("NVIDIA H100", "sm90"),), {}, "was built for sm86, and NVIDIA H100 is sm90"),
        ((), {}, "shows no GPU"),
        ((A4000,), {"version": "1.6"}, "was built by version 1.6 and 1.7 is here"),
        ((A4000,), {"backend": "trt"}, "an engine of 'trt', not of 'rtx'"),
        ((A4000,), {"device": "NVIDIA A10"}, "was built on NVIDIA A10, and this is NVIDIA RTX A4000"),
    ],
)
def test_a_foreign_engine_is_refused(
    network: Path, here: Machine, gpus: tuple[Gpu, ...], changes: dict[str, str], says: str
) -> None:
    plan = written(network, here, **changes)
    with pytest.raises(ModelError, match=says):
        manifest.check_loadable(plan, replace(here, gpus=gpus), backend="rtx", version="1.7")


def test_an_engine_that_is_not_what_was_built_is_refused(network: Path, here: Machine) -> None:
    plan = written(network, here)
    plan.write_bytes(b"b plan")
    with pytest.raises(ModelError, match="not the file that its manifest describes"):
        manifest.check_loadable(plan, here, backend="rtx", version="1.7")
    manifest.path_of(plan).write_text('{"identity": {"backend": "rtx"}}')
    with pytest.raises(ModelError, match="damaged"):
        manifest.check_loadable(plan, here, backend="rtx", version="1.7")
    manifest.path_of(plan).unlink()
    with pytest.raises(ModelError, match="has no manifest"):
        manifest.check_loadable(plan, here, backend="rtx", version="1.7")
    with pytest.raises(ModelError, match="no such engine"):
        manifest.check_loadable(plan.with_name("none.plan"), here, backend="rtx", version="1.7")
