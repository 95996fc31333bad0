"""The files that the pages' commands and snippets name, each made for real: from the built recipe, or by trtq itself.

A page that names a new file adds a line to THINGS, or to ON_PAGES where that page means another file by the name.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import NAME, SHARED, run_trtq
from tests.docs.pages import DOCS, ROOT, blocks

ENGINES = SHARED / "engines" / "trt8-resnet18-a100"
Make = Callable[[Path, pytest.FixtureRequest], None]


def make(name: str, folder: Path, request: pytest.FixtureRequest, page: str = "") -> bool:
    """Make what a page calls `name` in `folder`; return whether there is such a thing. What is there already stays."""
    known = {**THINGS, **ON_PAGES.get(page, {})}
    if name not in known:
        return False
    target = folder / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        known[name](target, request)
    return True


def _trtq(*arguments: str | Path) -> None:
    done = run_trtq(*arguments)
    assert done.returncode == 0, done.stderr


def float_network(target: Path, request: pytest.FixtureRequest) -> None:
    """Two branches, a Concat and a head: small, and with the names that the pages use."""
    random = np.random.default_rng(0)
    shapes = {"stem.w": (8, 3, 3, 3), "left.w": (8, 8, 3, 3), "right.w": (8, 8, 3, 3), "detect.w": (4, 16, 1, 1)}
    weights = [
        numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    pads, kernel = [1, 1, 1, 1], [3, 3]
    nodes = [
        helper.make_node(
            "Conv", ["images", "stem.w"], ["stem"], name="/stem/Conv", strides=[2, 2], pads=pads, kernel_shape=kernel
        ),
        helper.make_node("Relu", ["stem"], ["stem.act"], name="/stem/Relu"),
        helper.make_node("Conv", ["stem.act", "left.w"], ["left"], name="/left/Conv", pads=pads, kernel_shape=kernel),
        helper.make_node("Relu", ["left"], ["left.act"], name="/left/Relu"),
        helper.make_node(
            "Conv", ["left.act", "right.w"], ["right"], name="/right/Conv", pads=pads, kernel_shape=kernel
        ),
        helper.make_node("Relu", ["right"], ["right.act"], name="/right/Relu"),
        helper.make_node("Concat", ["left.act", "right.act"], ["head/Concat_1"], name="/head/Concat_1", axis=1),
        helper.make_node("Conv", ["head/Concat_1", "detect.w"], ["detect"], name="/detect/Conv", kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["detect"], ["score"], name="/score/Sigmoid"),
    ]
    batch = "batch" if request.node.name.startswith("test_commands_run[targets") else 1
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 64, 64])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch, 4, 32, 32])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), target)


def quantized(target: Path, request: pytest.FixtureRequest) -> None:
    """The float network with Q/DQ, placed and calibrated by trtq."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    _shared(target, request, "quantized.onnx", _quantize)


def _quantize(target: Path, request: pytest.FixtureRequest) -> None:
    float_network(target.with_name("float.onnx"), request)
    array(target.with_name("images.npy"), request)
    _trtq("ptq", target.with_name("float.onnx"), "--calibration", target.with_name("images.npy"), "-o", target)


def untied(target: Path, request: pytest.FixtureRequest) -> None:
    """The quantized network with other scales on the Concat's branches, as a bare insertion leaves them."""
    quantized(target, request)
    model = onnx.load(target)
    nodes = {name: node for node in model.graph.node for name in node.output}
    for number, node in enumerate(one for one in model.graph.node if one.op_type == "QuantizeLinear"):
        name = f"{node.input[1]}.own"
        scale = next(one for one in model.graph.initializer if one.name == node.input[1])
        own = numpy_helper.to_array(scale) * np.float32(1 + 0.1 * number)
        model.graph.initializer.append(numpy_helper.from_array(own.astype(np.float32), f"{name}{number}"))
        for one in model.graph.node:
            if one is node or (one.op_type == "DequantizeLinear" and nodes.get(one.input[0]) is node):
                one.input[1] = f"{name}{number}"
    onnx.save(model, target)


def cache(target: Path, request: pytest.FixtureRequest) -> None:
    """A calibration cache of the float network."""
    network = target.with_name("for-the-cache.onnx")
    quantized(network, request)
    _trtq("cache", "from-qdq", network, "-o", target, "--network", target.with_name("of-the-cache.onnx"))


def pictures(target: Path, request: pytest.FixtureRequest) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    target.mkdir()
    random = np.random.default_rng(1)
    for number in range(4):
        image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(target / f"{number}.png")


def array(target: Path, request: pytest.FixtureRequest) -> None:
    np.save(target, np.random.default_rng(2).random((16, 3, 64, 64), np.float32))


def recipe(target: Path, request: pytest.FixtureRequest) -> None:
    """The built recipe with all that it has built, under another name."""
    source = request.getfixturevalue("built")
    shutil.copyfile(source, target)
    shutil.copytree(source.with_suffix(""), target.with_suffix(""))


def recorded(name: str) -> Make:
    """A file of a real engine."""

    def copy(target: Path, request: pytest.FixtureRequest) -> None:
        if not ENGINES.is_dir():
            pytest.skip("the recorded engine files are not beside this checkout")
        shutil.copyfile(ENGINES / name, target)

    return copy


def trtexec(name: str) -> Make:
    """A log of a real run of trtexec."""

    def copy(target: Path, request: pytest.FixtureRequest) -> None:
        if not ENGINES.is_dir():
            pytest.skip("the recorded engine files are not beside this checkout")
        shutil.copyfile(ENGINES.parent / "trtexec-logs" / name, target)

    return copy


def layers(name: str) -> Make:
    """trtq's own layer file of a real engine."""

    def read(target: Path, request: pytest.FixtureRequest) -> None:
        if not ENGINES.is_dir():
            pytest.skip("the recorded engine files are not beside this checkout")
        _trtq("layers", ENGINES / f"{name}.graph.json", "--profile", ENGINES / f"{name}.profile.json", "-o", target)

    return read


def names_only(target: Path, request: pytest.FixtureRequest) -> None:
    target.write_text('{"Layers": ["conv", "conv [profile 1]"], "Bindings": []}')


def plan(target: Path, request: pytest.FixtureRequest) -> None:
    """An engine of TensorRT-RTX, with its manifest."""
    folder = request.getfixturevalue("built").with_suffix("") / "ptq"
    for suffix in ("", ".json"):
        shutil.copyfile(folder / f"engine.rtx.plan{suffix}", f"{target}{suffix}")


def flowers(target: Path, request: pytest.FixtureRequest) -> None:
    """What docs/own-network.md shows, as it stands there: the network, images, its weights; two steps, no RTX."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    network, convert = blocks(DOCS / "own-network.md", "python")
    body = blocks(DOCS / "own-network.md", "toml")[0]
    target.write_text(f'{body}\n[finetune]\niterations = 2\n\n[engine]\nbackends = ["ort"]\n')
    folder = target.parent
    (folder / "mynets").mkdir()
    (folder / "mynets" / "flowers.py").write_text(network)
    for number, name in enumerate(("daisy", "rose", "tulip")):
        (folder / "photos" / name).mkdir(parents=True)
        for shade in range(5):
            image.new("RGB", (80, 64), (40 * shade, 80 * number, 90)).save(folder / "photos" / name / f"{shade}.png")
    known: dict[str, Any] = {}
    exec(compile(network, "flowers.py", "exec"), known)
    torch.save(known["FlowerNet"](3).state_dict(), folder / "flowers.pt")
    here = Path.cwd()
    os.chdir(folder)
    exec(compile(convert, "own-network.md", "exec"), {})
    os.chdir(here)


def weights(target: Path, request: pytest.FixtureRequest) -> None:
    flowers(target.with_name("flowers.toml"), request)


_MADE: dict[str, Path] = {}


def _shared(target: Path, request: pytest.FixtureRequest, name: str, write: Make) -> None:
    """Copy what is made once a session."""
    if name not in _MADE:
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        _MADE[name] = factory.mktemp("things") / name
        write(_MADE[name], request)
    shutil.copyfile(_MADE[name], target)


THINGS: Mapping[str, Make] = {
    "model.onnx": float_network,
    "small/model.onnx": float_network,
    "qdq.onnx": quantized,
    "int8.onnx": quantized,
    "quantized.onnx": quantized,
    "qat.onnx": untied,
    "old.cache": cache,
    "ptq.cache": cache,
    "ranges.cache": cache,
    "images": pictures,
    "photos": pictures,
    "images.npy": array,
    "recipe.toml": recipe,
    f"engines/{NAME}.toml": recipe,
    "engines/mobilenet_v2-digits.toml": recipe,
    "engines/detector.toml": recipe,
    "engine.rtx.plan": plan,
    "flowers.toml": flowers,
    "flowers.pt": weights,
    "qat.graph.json": recorded("qat.graph.json"),
    "qat.profile.json": recorded("qat.profile.json"),
    "qat-residual.graph.json": recorded("qat-residual.graph.json"),
    "fp16.layers.json": layers("fp16"),
    "qat.layers.json": layers("qat"),
    "qat-residual.layers.json": layers("qat-residual"),
    "before.layers.json": layers("qat"),
    "after.layers.json": layers("qat-residual"),
    "measured.layers.json": layers("qat"),
    "model.layers.json": recorded("qat.graph.json"),
    "engine.json": names_only,
    "run.log": trtexec("trt8.0.3.txt"),
    "run.times.json": recorded("qat.timing.json"),
}
ON_PAGES: Mapping[str, Mapping[str, Make]] = {
    "unify.md": {"model.onnx": untied},
    "errors.md": {"model.onnx": untied},
    "gates.md": {"model.onnx": untied},
    "predict.md": {"model.onnx": untied},
    "predicted-compiled-measured.md": {"model.onnx": untied},
    "calibration-cache.md": {"qat.onnx": quantized},
}
assert DOCS.parent == ROOT
