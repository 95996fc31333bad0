"""The checkpoints that are shipped: they fit their recipe, and reach what their training record says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from trtq import files
from trtq.config import load_recipe
from trtq.data import load
from trtq.evaluate import evaluate
from trtq.models import load_model, parameter_count

ENGINES = Path(__file__).resolve().parents[2] / "engines"
IMAGES = 96
# Scatter of an accuracy on 96 instead of 512 images.
TOLERANCE = 0.03


@pytest.mark.parametrize(
    ("name", "metric", "least"), [("yolov7-tiny-digits", "map50", 0.95), ("mobilenet_v2-digits", "top1", 0.97)]
)
def test_a_shipped_checkpoint_reaches_its_recorded_accuracy(name: str, metric: str, least: float) -> None:
    recipe = load_recipe(ENGINES / f"{name}.toml")
    assert recipe.checkpoint is not None and recipe.checkpoint.stat().st_size <= 3 << 20
    record = files.read_json(recipe.checkpoint.with_suffix(".training.json"))
    model = load_model(recipe.model, recipe.checkpoint)
    assert record["arguments"] == recipe.model.arguments
    assert record["parameters"] == parameter_count(model)
    assert record["accuracy"][metric] >= least and record["accuracy"]["images"] >= 500

    @torch.inference_mode()
    def run(images: Any) -> list[Any]:
        outputs = model(torch.from_numpy(images))
        return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]

    decode = getattr(model, "decode_spec", None)
    spec = None if decode is None else decode()
    few = dataclasses.replace(recipe.data, validation_images=IMAGES)
    found = evaluate(run, load(few, "validation", recipe.seed, ENGINES), batch=16, decode=spec)
    for key, recorded in record["accuracy"].items():
        assert key == "images" or found[key] == pytest.approx(recorded, abs=TOLERANCE), key
