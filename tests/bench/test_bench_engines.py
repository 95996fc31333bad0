"""Which engines a benchmark takes, what it feeds them, and what it says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from trtq.backends import TensorSpec
from trtq.backends.measuring import BenchOptions
from trtq.bench import engines
from trtq.bench.engines import HALF_NOTE, Candidate, built_modes, make_feeds, names_apart, of_recipe, ready
from trtq.config import load_recipe
from trtq.errors import ConfigError, ModelError

ROOT = Path(__file__).resolve().parents[2]
WHERE = Path("net.onnx")
IMAGE = TensorSpec("image", (-1, 3, 4, 4), "float32")
HALF = """<ir_version: 8, opset_import: ["": 17]> network (float16[1, 3, 8, 8] image) => (float16[1, 3, 8, 8] out)
<float16[1] one = {15360}> { out = Mul(image, one) }"""


def test_random_input_follows_the_seed_and_the_batch() -> None:
    inputs = (IMAGE, TensorSpec("ids", (-1, 2), "int64"), TensorSpec("scale", (), "float16"))
    feeds = make_feeds(inputs, BenchOptions(batch=3), None, WHERE)
    assert {name: (one.shape, one.dtype.name) for name, one in feeds.items()} == {
        "image": ((3, 3, 4, 4), "float32"), "ids": ((3, 2), "int64"), "scale": ((), "float16"),
    }  # fmt: skip
    assert 0 <= feeds["image"].min() < feeds["image"].max() <= 1
    again, other = (make_feeds(inputs, BenchOptions(batch=3, seed=seed), None, WHERE) for seed in (0, 1))
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert not np.array_equal(feeds["image"], other["image"])


def test_real_images_are_taken_as_a_batch(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    np.save(tmp_path / "images.npy", images)
    feeds = make_feeds((IMAGE,), BenchOptions(batch=2), tmp_path / "images.npy", WHERE)
    np.testing.assert_array_equal(feeds["image"], images[:2])
    with pytest.raises(ModelError, match="takes 2 inputs"):
        make_feeds((IMAGE, IMAGE), BenchOptions(), tmp_path / "images.npy", WHERE)


@pytest.mark.parametrize(
    ("dims", "batch", "words"), [((2, 3), 4, "fixed batch of 2"), ((1, -1, 4), None, "fix all but the batch")]
)
def test_a_shape_that_does_not_fit_is_refused(dims: tuple[int, ...], batch: int | None, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make_feeds((TensorSpec("image", dims, "float32"),), BenchOptions(batch=batch), None, WHERE)


def test_names_differ() -> None:
    paths = ("a/engine.onnx", "b/engine.onnx", "b/engine.onnx", "net.onnx")
    found = names_apart([(Path(one).stem, Path(one)) for one in paths])
    assert found == ["a/engine", "b/engine", "b/engine (2)", "net"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "net.toml"
    shutil.copy(ROOT / "engines" / "mobilenet_v2-digits.toml", path)
    for mode in ("fp32", "qat"):
        for name in ("engine.ort.onnx", "engine.rtx.plan"):
            (tmp_path / "net" / mode).mkdir(parents=True, exist_ok=True)
            (tmp_path / "net" / mode / name).write_bytes(b"x")
    return path


def test_a_recipe_s_modes_run_on_one_back_end(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_recipe(recipe)
    assert built_modes(loaded, "ort") == ("fp32", "qat")
    assert [one.path.name for one in of_recipe(loaded, ("fp32", "qat"), "rtx")] == ["engine.rtx.plan"] * 2
    monkeypatch.setattr(engines, "machine", lambda ask_driver: type("Machine", (), {"gpus": ()}))
    assert [one.backend for one in of_recipe(loaded, ("qat",))] == ["ort"]
    with pytest.raises(ModelError, match="is not built; run `trtq build"):
        of_recipe(loaded, ("ptq",), "ort")
    with pytest.raises(ConfigError, match="its back ends are rtx, ort"):
        of_recipe(loaded, ("qat",), "trt")


def test_fp16_on_the_processor_is_said_to_be_float_kernels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    path = tmp_path / "half.onnx"
    onnx.save(onnx.parser.parse_model(HALF), path)
    with ready(Candidate("half", path, "ort"), BenchOptions(cuda_graph=True), profile=True) as one:
        assert HALF_NOTE in one.timed.notes and one.timed.dialect.startswith("ONNX Runtime ")
        assert one.timed.options["cuda_graph"] is None and one.timed.options["threads"] == 1
        assert one.layers is not None and one.layers.origin == "measured"
        assert len(one.timed.timer.time(iterations=3).compute_us) == 3
