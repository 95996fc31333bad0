"""Naive, the published scale rules and trtq's side by side: full-size networks compiled by TensorRT-RTX for SM86.

Weights are random (BatchNorm settled on a few images), so this shows structure, not accuracy. Naive: one quantizer for
each convolution input, mse calibration on the same images.

"published" repeats what the rules do that NVIDIA publishes with its YOLOv7 and cuDLA samples, written anew from a
description of their behaviour: they look at a Concat, or a MaxPool, whose output a quantizer reads first; join to it
the quantizers that read one of the inputs, that very tensor; and take over one quantizer for the other pair by pair, in
order, so that a later pair does not reach what an earlier one made equal.

The requantize signal is shown to fire on an SPPCSPC whose Concat inputs have a Q/DQ pair of their own each.

    python -m benchmarks.published_rules
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from benchmarks import networks
from benchmarks.networks import NETWORKS
from benchmarks.recording import record, trtq
from trtq import ptq, qdq
from trtq.data.images import load_images
from trtq.qdq import changes, editing, pairs, reading, statistics
from trtq.qdq.groups import Member, ScaleGroup, joint_of
from trtq.qdq.statistics import Statistics

SIGNALS = ("double_writes", "requantizes", "float_writes", "traffic_bytes", "int8_share", "layers")
SCALES_TRIED = 200


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {f"{network}@{size}": compared(network, folder) for network, size in NETWORKS.items()}
        pyramid = {
            "own scales": built(sppcspc(folder / "own" / "model.onnx", equal=False)),
            "one scale": built(sppcspc(folder / "one" / "model.onnx", equal=True)),
        }
    record(
        "published_rules",
        "python -m benchmarks.published_rules",
        {"networks": found, "sppcspc with a pair on every Concat input": pyramid},
    )


def compared(network: str, folder: Path) -> dict[str, Any]:
    """Return what each placement compiles to, and how many of the naive one's double writes `trtq diff` names."""
    published, unified = (folder / network / name / "model.onnx" for name in ("published", "trtq"))
    naive = networks.compiled(network, "naive", folder)
    model = qdq.load(naive / "model.onnx")
    apply_published(model, naive.parent / "int8.toml")
    qdq.save(model, published)
    trtq("unify", naive / "model.onnx", "--output", unified)
    placements = {"naive": signals(naive), "published": built(published), "trtq": built(unified)}
    differences = trtq("diff", naive, unified.parent)[0]["differences"]
    return {**placements, "double_writes_named_by_diff": sum(one["class"] == "double write" for one in differences)}


def built(model: Path) -> dict[str, Any]:
    """Build the engine of an ONNX file; return its signals."""
    trtq("build", model, "--backend", "rtx", "--output", model.parent)
    return signals(model.parent)


def signals(folder: Path) -> dict[str, Any]:
    """Return an engine's signals, and how many tensors its ONNX file quantizes with two scales."""
    found, _ = trtq("layers", folder)
    model = qdq.load(folder / "model.onnx")
    return {**{name: found[name] for name in SIGNALS}, "tensors_with_two_scales": two_scales(model)}


def apply_published(model: ir.Model, recipe: Path) -> None:
    """Give quantizers one scale as the published rules would, in place.

    One that stands for several sees the values of all their tensors, so its scale is the one of least squared error
    over them together. Where it stands for itself alone, the scale is the file's.
    """
    separate(model)
    quantizers = [node for node in model.graph if reading.is_quantize(node) and reading.is_activation(node)]
    objects = {node: node for node in quantizers}
    for major, minor in published_pairs(model):
        objects[minor] = objects[major]
    sharing: dict[ir.Node, list[Member]] = {}
    for node in quantizers:
        own = reading.scalar_scale(node)
        assert own is not None
        member = Member(reading.name(node.inputs[0]), reading.name(node.outputs[0]), own)
        sharing.setdefault(objects[node], []).append(member)
    shared = [ScaleGroup(tuple(members), (), "certain") for members in sharing.values() if len(members) > 1]
    seen = statistics.collect(
        model,
        [tensor for group in shared for tensor in group.tensors],
        lambda one, tensors: ptq.observe(one, tensors, load_images(recipe, ptq.input_shape(one))),
    )
    changes.apply(model, [(group, calibrated(group, seen)) for group in shared])


def calibrated(group: ScaleGroup, seen: Mapping[str, Statistics]) -> float:
    """Return the scale of least squared error over the values of all the group's tensors."""
    first, *others = (seen[tensor] for tensor in group.tensors)
    together = sum(others, first)
    candidates = np.geomspace(0.7 * min(group.scales), 1.4 * max(group.scales), SCALES_TRIED)
    return float(np.float32(min(candidates, key=together.noise)))


def separate(model: ir.Model) -> None:
    """Give every reader of a pair a pair of its own, in place: in PyTorch, where the rules run, each has a quantizer.

    The exporter writes equal quantizers of one tensor as one.
    """
    taken = editing.names(model)
    for node in [one for one in model.graph if reading.is_dequantize(one) and reading.is_activation(one)]:
        quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
        assert quantizer is not None
        tensor, *parameters = (value for value in quantizer.inputs if value is not None)
        for reader, place in tuple(node.outputs[0].uses())[1:]:
            reader.replace_input_with(place, tensor)
            pairs.insert(model, reader, tensor, parameters, taken)


def published_pairs(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield (the quantizer that is kept, the one that it replaces) in graph order."""
    order = {node: place for place, node in enumerate(model.graph)}
    for node in model.graph:
        if node.op_type not in ("Concat", "MaxPool"):
            continue
        readers = sorted(node.outputs[0].consumers(), key=order.__getitem__)
        if not readers or not reading.is_quantize(readers[0]):
            continue
        for value in node.inputs:
            for reader in sorted(value.consumers() if value is not None else (), key=order.__getitem__):
                if reading.is_quantize(reader):
                    yield readers[0], reader


def two_scales(model: ir.Model) -> int:
    """Count the tensors that a kernel writes and that quantizers read with several scales.

    Quantizers count where TensorRT moves them: in front of what only joins or passes values on.
    """
    scales: dict[int, set[float]] = {}
    count = 0
    for node in reversed(model.graph):
        own = {scale for value in node.outputs for scale in scales.get(id(value), ())}
        joint = joint_of(node)
        if reading.is_quantize(node):
            own = {reading.scalar_scale(node) or 0.0}
        elif joint is None:
            count += len(own) > 1
            own = set()
        for value in node.inputs if joint is None or joint.all_inputs else node.inputs[:1]:
            scales.setdefault(id(value), set()).update(own)
    return count


def sppcspc(path: Path, *, equal: bool) -> Path:
    """Write an SPPCSPC: a chain of three pools and their input into a Concat, whose result meets another branch in a
    second one; every Concat input has a Q/DQ pair, all of one scale or each of its own.
    """
    network = _Network()

    def scaled(own: float) -> float:
        return 0.03 if equal else own

    x = network.conv("x", 3, 64, 1, stride=2)
    levels = [network.conv(network.conv(network.conv(x, 64, 64, 1), 64, 64, 3), 64, 64, 1)]
    for _ in range(3):
        levels.append(network.op("MaxPool", levels[-1], kernel_shape=[5, 5], pads=[2] * 4))
    quantized = [network.pair(one, scaled(0.03 + 0.004 * place)) for place, one in enumerate(levels)]
    joined = network.op("Concat", *quantized, axis=1)
    main = network.conv(network.conv(joined, 256, 64, 1, scaled(0.05)), 64, 64, 3)
    side = network.conv(x, 64, 64, 1)
    both = network.op("Concat", network.pair(main, scaled(0.041)), network.pair(side, scaled(0.043)), axis=1)
    beside = network.conv(levels[0], 64, 64, 1, scaled(0.06))
    return network.save(path, network.conv(both, 128, 64, 1), beside)


class _Network:
    """Collects nodes of a Q/DQ network with random int8 weights; each method returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {"zero": np.int8(0)}
        self.random = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def pair(self, tensor: str, scale: float) -> str:
        place = f"scale{len(self.nodes)}"
        self.constants[place] = np.float32(scale)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", tensor, place, "zero"), place, "zero")

    def conv(self, tensor: str, channels: int, filters: int, size: int, scale: float = 0.03, stride: int = 1) -> str:
        """A convolution with SiLU, its input quantized with `scale`."""
        tag = f"w{len(self.nodes)}"
        shape = (filters, channels, size, size)
        self.constants[tag] = self.random.integers(-127, 128, shape, dtype=np.int8)
        self.constants[f"{tag}_scale"] = self.random.uniform(0.001, 0.002, filters).astype(np.float32)
        self.constants[f"{tag}_zero"] = np.zeros(filters, np.int8)
        weight = self.op("DequantizeLinear", tag, f"{tag}_scale", f"{tag}_zero", axis=0)
        pads, strides = [size // 2] * 4, [stride] * 2
        out = self.op("Conv", self.pair(tensor, scale), weight, pads=pads, strides=strides)
        return self.op("Mul", out, self.op("Sigmoid", out))

    def save(self, path: Path, *outputs: str) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "sppcspc",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 40, 40])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.parent.mkdir(parents=True)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


if __name__ == "__main__":
    main()
