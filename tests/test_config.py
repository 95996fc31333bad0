"""Recipes: what is wrong in one is said in one sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.config import load_recipe
from trtq.errors import ConfigError, TrtqError

MINIMAL = '[model]\nname = "yolov7-tiny"\n[data]\nname = "digit-scenes"\nimage_size = 160\n'


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_a_minimal_recipe_has_defaults_and_a_folder_beside_it(tmp_path: Path) -> None:
    loaded = load_recipe(recipe(tmp_path, MINIMAL))
    assert loaded.engine.targets == ("sm86",)
    assert loaded.folder == tmp_path / "recipe"
    assert loaded.checkpoint is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("thread = 2\n" + MINIMAL, r"unknown key 'thread'; did you mean 'threads'\?"),
        (MINIMAL + "batches = 3\n", r"data: unknown key 'batches'; did you mean 'batch'\?"),
        (MINIMAL + '[quantization]\ncalibrator = "msee"\n', r"calibrator is 'msee'; .* did you mean 'mse'\?"),
        (MINIMAL + "[finetune]\niterations = true\n", "iterations is True; it must be of type int"),
        (MINIMAL + "[finetune]\niterations = 0\n", "finetune.iterations is 0; it must be greater than 0"),
        (MINIMAL + '[engine]\ntargets = "sm86"\n', "targets must be a list, not 'sm86'"),
        (MINIMAL + "[engine]\nopset = 99\n", "engine.opset is 99"),
        (MINIMAL + "[engine]\ndynamic_batch = [2, 4]\n", r"engine.dynamic_batch is \[2, 4\]; .* engine.batch \(1\)"),
        (MINIMAL + "[engine]\ndynamic_batch = [1]\n", r"engine.dynamic_batch is \[1\]"),
        (MINIMAL + "[engine]\ntimeout_s = 0\n", "engine.timeout_s is 0"),
        (MINIMAL + "[engine]\nmemory_limit_mib = 0\n", "engine.memory_limit_mib is 0"),
        (MINIMAL + "[engine]\ndla_core = -1\n", "engine.dla_core is -1"),
        ("model = 3\n" + MINIMAL.partition("[data]")[2], "unknown key|must be a table"),
        (MINIMAL.partition("[data]")[0], "'data' is missing"),
        ("not toml", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe(tmp_path, change))


def test_a_missing_recipe_names_the_nearest_one(tmp_path: Path) -> None:
    recipe(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"no such recipe; did you mean '.*recipe\.toml'\?"):
        load_recipe(tmp_path / "recipee.toml")


@given(text=st.text(alphabet=st.sampled_from('[]="\n.abcdemodlnt 01'), max_size=80))
def test_no_text_raises_anything_but_a_deliberate_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "recipe.toml"
    path.write_text(MINIMAL + text)
    try:
        load_recipe(path)
    except TrtqError as error:
        assert "\n" not in str(error)
