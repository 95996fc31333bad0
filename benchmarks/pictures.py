"""The README's picture: one ELAN block, quantized naively and by trtq, compiled for SM86 and drawn by `trtq graph`.

python -m benchmarks.pictures
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

from torch import nn

from benchmarks.recording import ROOT, compile_mode
from trtq import files
from trtq.layers.graph import load_layers
from trtq.models.yolov7 import ConvBNAct, ElanTiny
from trtq.report.svg import svg

IMAGES = ROOT / "docs" / "images"
TITLES = {"naive": "one scale per convolution input", "ptq": "one scale per group (trtq)"}
RECIPE = """\
[model]
name = "benchmarks.pictures:elan"

[data]
name = "digit-scenes"
image_size = 64
calibration_images = 8
batch = 8

[engine]
backends = ["rtx"]
"""


def elan() -> nn.Module:
    """Return a stem and one ELAN block: four branches into a Concat, one of them also read by the next branch."""
    blocks = {"stem": ConvBNAct(3, 16, 3, 2, act="leaky_relu"), "elan": ElanTiny(16, 16, 32, act="leaky_relu")}
    return nn.Sequential(OrderedDict(blocks))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "elan.toml"
        recipe.write_text(RECIPE)
        for mode, title in TITLES.items():
            graph = load_layers(compile_mode(recipe, mode, Path(folder)) / "layers.json")
            files.write_text(IMAGES / f"elan-{mode}.svg", svg(graph, title))


if __name__ == "__main__":
    main()
