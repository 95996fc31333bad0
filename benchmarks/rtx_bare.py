"""What `trtq build --backend rtx` costs beside the bare builder: TensorRT-RTX's own calls in a script, no more.

The same ONNX file for SM86: the demo's two networks and ResNet-50 at 224 with random weights, in FP32. The bare script
parses, builds and writes the plan. `trtq build` also checks the file, runs the linter before the build, keeps a log and
the layer table, and writes a manifest; a second run of it finds the engine there. Fresh processes, in turn over ROUNDS
rounds; medians of seconds and of the peak memory of the whole, and the ratio.

    python -m benchmarks.rtx_bare
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.networks import RECIPE
from benchmarks.ptq_peers import exported
from benchmarks.recording import ROOT, record
from benchmarks.unify_cost import measured

ROUNDS = 3
BARE = """
import sys
import tensorrt_rtx as trt
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
assert parser.parse_from_file(sys.argv[1])
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM86, 0)
open(sys.argv[2], "wb").write(builder.build_serialized_network(network, config))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "resnet50.toml"
        text = RECIPE.format(name="resnet50", size=224).replace('exclude = ["detect.*"]', "")
        recipe.write_text(text.replace("digit-scenes", "digits"))
        recipes = {one: ROOT / "engines" / f"{one}.toml" for one in ("yolov7-tiny-digits", "mobilenet_v2-digits")}
        networks = {
            one: beside(exported(path, folder / f"{one}.onnx"), folder / one)
            for one, path in {**recipes, "resnet50@224": recipe}.items()
        }
    record("rtx_bare", "python -m benchmarks.rtx_bare", {"rounds": ROUNDS, "networks": networks})


def beside(model: Path, folder: Path) -> dict[str, Any]:
    """Build one file both ways, and once more where it is built already."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(ROUNDS):
        out = folder / str(number)
        out.mkdir(parents=True)
        ours = [sys.executable, "-m", "trtq", "build", str(model), "--backend", "rtx", "-o", str(out)]
        rounds.append(
            {
                "bare": measured([sys.executable, "-c", BARE, str(model), str(out / "bare.plan")]),
                "trtq": measured(ours),
                "trtq, up to date": measured(ours),
            }
        )
    medians = {
        name: {key: statistics.median(one[name][key] for one in rounds) for key in ("s", "peak_mib")}
        for name in rounds[0]
    }
    of_bare = {
        key: round(statistics.median(one["trtq"][key] / one["bare"][key] for one in rounds), 3)
        for key in ("s", "peak_mib")
    }
    return {"medians": medians, "of_bare": of_bare, "raw": rounds}


if __name__ == "__main__":
    main()
