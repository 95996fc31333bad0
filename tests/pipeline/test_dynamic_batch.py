"""A recipe with a dynamic batch: one file and one engine for every batch in the range."""

from pathlib import Path

import numpy as np

from tests.conftest import write_recipe
from trtq.backends import BuildSpec, ort, rtx
from trtq.config import load_recipe
from trtq.layers.graph import load_layers
from trtq.pipeline import engine
from trtq.quant import export_recipe

DYNAMIC = ("[quantization]\n", "[engine]\nbatch = 2\ndynamic_batch = [1, 4]\n\n[quantization]\n")


def test_the_file_takes_any_batch_and_the_engine_those_of_its_range(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, DYNAMIC))
    model = tmp_path / "model.onnx"
    export_recipe(recipe, None, model)

    session = ort.load(model)
    for batch in (1, 3, 4):
        outputs = session.run({engine.INPUT: np.zeros((batch, 3, 64, 64), np.float32)})
        assert {output.shape[0] for output in outputs.values()} == {batch}

    spec = BuildSpec(model, ("sm86",), "fp32", engine.engine_options(recipe))
    engine.build_engine(rtx, spec, tmp_path, recipe=recipe.path)
    (taken,) = {
        layer.inputs[0].dims
        for layer in load_layers(tmp_path / "layers.json").layers
        if layer.inputs[:1] and layer.inputs[0].name == engine.INPUT
    }
    assert taken[1:] == (3, 64, 64) and taken[0] in (-1, 2)
