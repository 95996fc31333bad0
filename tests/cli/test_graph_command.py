"""`trtq graph`: whole engines and parts of them from a command line, one sentence and no file where that fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import SHARED, run_trtq

ENGINE = SHARED / "engines" / "trt8-resnet18-a100" / "qat.graph.json"
pytestmark = [
    pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not installed"),
    pytest.mark.skipif(not ENGINE.exists(), reason="the folder with real engine files is not here"),
]


def cards(picture: Path) -> int:
    return picture.read_text().count("data-layer=")


def test_whole_folded_and_in_part(tmp_path: Path) -> None:
    drawn = {}
    for name, options in {
        "whole": ("--profile", ENGINE.with_name("qat.profile.json")),
        "fold": ("--fold",),
        "flat": ("--no-regions",),
        "only": ("--only", "conversions", "--hops", "0"),
        "around": ("--around", "layer2.0", "--title", "the second stage"),
    }.items():
        done = run_trtq("graph", str(ENGINE), "-o", str(tmp_path / f"{name}.svg"), *map(str, options))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / f"{name}.svg")
        drawn[name] = cards(tmp_path / f"{name}.svg")
    assert drawn["whole"] == drawn["flat"] == 37
    assert 5 < drawn["around"] < drawn["only"] < drawn["fold"] < drawn["whole"]
    assert "µs" in (tmp_path / "whole.svg").read_text()
    assert 'class="frame"' not in (tmp_path / "flat.svg").read_text()
    assert "the second stage" in (tmp_path / "around.svg").read_text()


def test_an_onnx_file_is_drawn_as_predicted(tmp_path: Path) -> None:
    model = SHARED / "onnx" / "producers" / "fork-ort-tensorrt-style.onnx"
    for mode in ("qat", "ptq"):
        done = run_trtq("graph", str(model), "--mode", mode, "-o", str(tmp_path / f"{mode}.svg"))
        assert done.returncode == 0, done.stderr
        picture = (tmp_path / f"{mode}.svg").read_text()
        assert "no engine was built" in picture
        assert f"{model.name} {mode}" in picture
    assert (tmp_path / "qat.svg").read_text() != (tmp_path / "ptq.svg").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--around", "layer2.0.conv1.weigth"), "did you mean 'layer2.0.conv1.weight'"),
        (("--only", "convertions"), "did you mean 'conversions'"),
        (("--only", "requantizes"), "a measured engine of TensorRT 8 to 10 cannot tell"),
        (("--hops", "3"), "--hops needs --only or --around"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_and_no_file(
    tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = run_trtq("graph", str(ENGINE), "-o", str(tmp_path / "x.svg"), *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
