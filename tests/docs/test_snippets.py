"""The pages' Python runs as it stands there, and their TOML is a recipe or a part of one."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import pytest

from tests.docs.pages import HOW_TO, blocks, name_of
from tests.docs.things import make
from trtq.config import load_recipe
from trtq.errors import TrtqError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REST = {"model": '[model]\nname = "mobilenet_v2"\n', "data": '[data]\nname = "digits"\nimage_size = 64\n'}
# What a snippet reads or imports that has to be there first.
NEEDED = {
    "gates.md": ("engines/detector.toml",),
    "own-network.md": ("flowers.pt",),
    "ptq.md": ("small/model.onnx",),
    "running.md": ("engine.rtx.plan",),
}
NEEDS_GPU = {"running.md"}


@pytest.mark.parametrize("page", [page for page in HOW_TO if blocks(page, "toml")], ids=name_of)
def test_toml_is_a_recipe(page: Path, tmp_path: Path) -> None:
    for number, body in enumerate(blocks(page, "toml")):
        missing = "".join(text for table, text in REST.items() if table not in tomllib.loads(body))
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(f"{body}\n{missing}")
        assert load_recipe(recipe).model.name


@pytest.mark.parametrize("page", [page for page in HOW_TO if blocks(page, "python")], ids=name_of)
def test_python_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in NEEDED.get(page.name, ()):
        make(name, tmp_path, request)
    if (small := tmp_path / "small").exists():
        shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for body in blocks(page, "python"):
        known: dict[str, object] = {"__name__": page.stem}
        run(compile(body, page.name, "exec"), known, may_lack_gpu=page.name in NEEDS_GPU)
        for name, one in known.items():
            if name.startswith("test_"):
                assert callable(one)
                run_test(one)


def run(code: CodeType, known: dict[str, object], *, may_lack_gpu: bool) -> None:
    """Run a snippet; one that needs a GPU has to be refused in a sentence that says so, where there is none."""
    try:
        exec(code, known)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    except TrtqError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        assert may_lack_gpu and "GPU" in str(error), error


def run_test(test: Callable[[], None]) -> None:
    """Run a test that a page shows; a gate of it may fail on another network than the page's, and has to say so."""
    try:
        test()
    except AssertionError as failed:
        assert re.search(r"^\S+: \w+ is .+, fails on \w+[<>=]", str(failed)), failed
