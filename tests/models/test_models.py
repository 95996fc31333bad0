from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trtq.config import ModelSpec
from trtq.errors import ConfigError, ModelError
from trtq.models import ZOO, load_model, parameter_count

SPEC = ModelSpec("yolov7-tiny", arguments={"num_classes": 3, "width": 0.125})


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return load_model(SPEC, None).state_dict()


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file(state, path)
    return path


def test_every_name_of_the_zoo_builds() -> None:
    for name in ZOO:
        with torch.device("meta"):
            model = load_model(ModelSpec(name), None)
        assert parameter_count(model) > 1e6 and not model.training


def test_a_callable_of_any_package_builds() -> None:
    model = load_model(ModelSpec("torch.nn:Linear", arguments={"in_features": 3, "out_features": 2}), None)
    assert isinstance(model, nn.Linear)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("yolov7-tiney"), "did you mean 'yolov7-tiny'"),
        (ModelSpec("no_such_package_x:build"), "cannot import 'no_such_package_x'"),
        (ModelSpec("torch.nn:Linnear"), "'torch.nn' has no 'Linnear'"),
        (ModelSpec("torch:float32"), "not callable"),
        (ModelSpec("builtins:dict"), "returns dict, not a torch.nn.Module"),
        (ModelSpec("yolov7-tiny", arguments={"wdth": 1.0}), "does not take these arguments .*wdth"),
        (ModelSpec("mobilenet_v2", arguments={"width_mult": "wide"}), "does not take these arguments"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_sentence(spec: ModelSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_model(spec, None)
    assert "\n" not in str(raised.value)


def test_float16_weights_become_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: one.half() if one.is_floating_point() else one for name, one in state.items()}
    loaded = load_model(SPEC, saved(half, tmp_path)).state_dict()
    assert {one.dtype for name, one in loaded.items() if not name.endswith("tracked")} == {torch.float32}
    for name, one in half.items():
        assert torch.equal(loaded[name], one.float() if one.is_floating_point() else one)


def test_a_checkpoint_of_another_network_names_a_tensor_and_a_count(state: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'detect\.0\.weight' has shape .*, and 5 more"):
        wider = ModelSpec("yolov7-tiny", arguments={"num_classes": 4, "width": 0.125})
        load_model(wider, saved(state, tmp_path))
    with pytest.raises(ModelError, match=r"'detect\.2\.bias' is missing; check"):
        load_model(SPEC, saved({k: v for k, v in state.items() if k != "detect.2.bias"}, tmp_path))
    with pytest.raises(ModelError, match="'spare' is unexpected"):
        load_model(SPEC, saved({**state, "spare": torch.zeros(1)}, tmp_path))


def test_missing_and_damaged_checkpoints_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        load_model(SPEC, tmp_path / "nowhere.safetensors")
    path = saved(state, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a safetensors file, or damaged"):
        load_model(SPEC, path)


class Untrusted:
    """Unpickling this runs code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_is_read_only_when_allowed(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "extra": Untrusted()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="pickled checkpoint"):
        load_model(SPEC, tmp_path / "evil.pt")
    assert not Path("ran").exists()
    loaded = load_model(SPEC, tmp_path / "evil.pt", allow_pickle=True).state_dict()
    assert Path("ran").exists()
    assert torch.equal(loaded["detect.0.weight"], state["detect.0.weight"])


def test_an_allowed_pickle_may_hold_weights_a_module_or_nothing_useful(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    for content in (state, {"model": state}, load_model(SPEC, None)):
        torch.save(content, tmp_path / "some.pth")
        load_model(SPEC, tmp_path / "some.pth", allow_pickle=True)
    torch.save([1, 2], tmp_path / "some.pth")
    with pytest.raises(ModelError, match="holds no state dict"):
        load_model(SPEC, tmp_path / "some.pth", allow_pickle=True)
    (tmp_path / "some.pth").write_bytes(b"not a pickle")
    with pytest.raises(ModelError, match="cannot be unpickled"):
        load_model(SPEC, tmp_path / "some.pth", allow_pickle=True)


def test_the_state_dict_round_trips(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert load_file(saved(state, tmp_path)).keys() == state.keys()
    loaded = load_model(SPEC, saved(state, tmp_path))
    images = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    with torch.no_grad():
        for one, other in zip(loaded(images), load_model(SPEC, None)(images), strict=True):
            assert torch.equal(one, other)
