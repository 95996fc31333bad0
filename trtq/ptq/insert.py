"""Q/DQ insertion into a float network, where NVIDIA's placement recommendations and trtq's own rules want it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from trtq import qdq, rules
from trtq.errors import ConfigError, ModelError
from trtq.ptq.placement import QUANTIZED, Site, enclosable, excluded, is_weighted, sites
from trtq.ptq.weights import Weights, WeightWriter, is_zero
from trtq.qdq import changes, editing, pairs, reading
from trtq.qdq.groups import Member, ScaleGroup, is_member
from trtq.rules import Context, missing_pairs, readers

# A pair's scale until all pairs stand and their groups are known.
PLACEHOLDER_AMAX = float(pairs.INT8_BOUND)
PLACEMENT_RULES = tuple(rule.code for rule in rules.RULES if rule.code.startswith("TQ2") and rule.fix is not None)
TENSORRT_8_OPSET = 17


@dataclass(frozen=True)
class Insertion:
    """What was put into a float network.

    pairs: Q/DQ pairs on activations. layers: how many have int8 weights. groups: how many scales several tensors share.
    amax: the range of each quantized tensor, in its own unit. left_float: layers without int8 weights, each with why.
    notes: ranges that deserve a second look.
    """

    pairs: int
    layers: int
    groups: int
    amax: Mapping[str, float]
    left_float: tuple[str, ...]
    notes: tuple[str, ...] = ()


def insert(
    model: ir.Model, amax: Mapping[str, float], exclude: Sequence[str] = (), *, weights: Weights = "int8"
) -> Insertion:
    """Put Q/DQ pairs and int8 weights into a float32 network, in place; tensors of one scale group get one scale.

    The data input of every Conv, Gemm and MatMul with a constant weight is quantized per tensor, its weight per output
    channel; so are the residual input of an Add, and what the rules TQ201 to TQ213 want besides. Readers of one tensor
    share one pair. scale = amax / 127, of the widest tensor of its group.
    amax: range by tensor name, as `scale_groups` lists them; one of each group is enough. A tensor that is all zero has
    no scale, and what reads it stays float. exclude: globs over node names that stay float. weights: "int8" stores
    integers followed by DQ (TensorRT 10 and later), "float" keeps floats followed by Q and DQ (TensorRT 8, opset 17 at
    most).
    Source: the placement recommendations in NVIDIA's "Working with quantized types".
    Raises `ModelError` for a network below opset 13, already quantized, or not float32, and for a missing or
    non-finite range; `ConfigError` for a glob that matches no node, and for float weights above opset 17.
    """
    check_form(model, weights)
    _check(model, amax, exclude)
    left = [f"{reading.label(node)}: {why}" for node, why in _left(model, exclude)]
    placed = _place(model, exclude, amax, weights)
    groups = _tied(model)
    ranges = [max(amax[tensor] for tensor in group.tensors if tensor in amax) for group in groups]
    changes.apply(
        model, [(one, largest / pairs.INT8_BOUND) for one, largest in zip(groups, ranges, strict=True)], suffix="scale"
    )
    return Insertion(
        pairs=sum(len(group.members) for group in groups),
        layers=placed.layers,
        groups=sum(len(group.tensors) > 1 for group in groups),
        amax={tensor: largest for group, largest in zip(groups, ranges, strict=True) for tensor in group.tensors},
        left_float=(*left, *placed.left),
    )


def scale_groups(model: ir.Model, exclude: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Return the tensors that `insert` quantizes, those that share a scale together, in graph order.

    The network is left as it is. Raises what `insert` raises for the network and for `exclude`.
    """
    copy = model.clone()
    _place(copy, exclude, None, "int8")
    return tuple(group.tensors for group in _tied(copy))


def activations(model: ir.Model, exclude: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the tensors that `insert` quantizes, each once; raises as `scale_groups` does."""
    return tuple(tensor for group in scale_groups(model, exclude) for tensor in group)


def check_form(model: ir.Model, weights: Weights) -> None:
    """Raise `ConfigError` for float weights in a network that TensorRT 8, which they are for, does not read."""
    opset = model.graph.opset_imports.get("", 0)
    if weights == "float" and opset > TENSORRT_8_OPSET:
        raise ConfigError(
            f"float weights are for TensorRT 8, which reads opset {TENSORRT_8_OPSET} at most, and the network has"
            f" {opset}; export it again, or take int8 weights"
        )


def _check(model: ir.Model, amax: Mapping[str, float], exclude: Sequence[str]) -> None:
    for tensor, largest in amax.items():
        if not math.isfinite(largest) or largest < 0:
            raise ModelError(f"tensor '{tensor}' has the range {largest}; a range is finite and not negative")
    missing = {site.tensor for site in sites(model, exclude)} - set(amax)
    for group in scale_groups(model, exclude) if missing else ():
        if missing.intersection(group) and not set(amax).intersection(group):
            raise ModelError(f"tensor '{group[0]}' has no range; collect those of all that `scale_groups` lists")


@dataclass
class _Placed:
    """How many layers got int8 weights, and which nodes stay float for a weight or a tensor of zeros."""

    layers: int = 0
    left: list[str] = field(default_factory=list)


def _place(model: ir.Model, exclude: Sequence[str], amax: Mapping[str, float] | None, weights: Weights) -> _Placed:
    """Put in weights and all pairs, with one placeholder for a scale.

    amax: the known ranges; a pair that only a rule wants is left out where its tensor has none. None: all are known.
    """
    placed, taken, left = _Placed(), editing.names(model), excluded(model, exclude)
    writer = WeightWriter(model, weights, taken)
    pairs_of: dict[ir.Value, ir.Value] = {}
    for site in sites(model, exclude):
        if amax is not None and is_zero(amax.get(site.tensor, PLACEHOLDER_AMAX)):
            placed.left.append(f"{reading.label(site.node)}: tensor '{site.tensor}' is all zero")
        elif site.node.op_type not in QUANTIZED:
            _quantize_input(model, site, pairs_of, taken)
        elif writer.quantize(site.node):
            placed.layers += 1
            _quantize_input(model, site, pairs_of, taken)
        else:
            placed.left.append(f"{reading.label(site.node)}: its weight is all zero")
    _mend(model, amax)
    _leave_float(model, left)
    return placed


def _mend(model: ir.Model, amax: Mapping[str, float] | None) -> None:
    """Put in what the rules want; each round may let an operator run in int8 that the other wants a pair for."""

    def ranges(_: ir.Model, tensors: Sequence[str]) -> dict[str, float]:
        return {name: PLACEHOLDER_AMAX if amax is None or not is_zero(amax.get(name, 0)) else 0.0 for name in tensors}

    for _ in range(rules.ROUNDS_LIMIT):
        rules.mend(model, context=Context(ranges=ranges), select=PLACEMENT_RULES)
        found = enclosable(model)
        missing_pairs.mend(model, found, Context(ranges=ranges), "input")
        if not found:
            break


def _leave_float(model: ir.Model, left: Iterable[ir.Node]) -> None:
    """Take away what the rules put in front of excluded sums, pools and the like; a layer is float by its weights."""
    for node in left:
        for index, value in enumerate(() if node.op_type in reading.WEIGHTED else node.inputs):
            dequantizer = readers.dequantizer_before(value)
            quantizer = None if dequantizer is None else readers.quantizer_before(dequantizer)
            if dequantizer is not None and quantizer is not None:
                node.replace_input_with(index, quantizer.inputs[0])
                pairs.drop(model, dequantizer)


def _quantize_input(model: ir.Model, site: Site, pairs_of: dict[ir.Value, ir.Value], taken: set[str]) -> None:
    """Make the site read its tensor through the tensor's one pair."""
    value = site.node.inputs[site.index]
    assert value is not None
    if value not in pairs_of:
        name = reading.name(value)
        parameters = pairs.parameters_for(model, PLACEHOLDER_AMAX, f"{name}_placeholder", taken)
        quantizer = pairs.insert(model, site.node, value, parameters, taken)
        (dequantizer,) = quantizer.outputs[0].consumers()
        pairs_of[value] = dequantizer.outputs[0]
    site.node.replace_input_with(site.index, pairs_of[value])


def _tied(model: ir.Model) -> tuple[ScaleGroup, ...]:
    """Return the scale groups, those of one quantizer too, in graph order."""
    tied = {member.quantized: group for group in qdq.groups(model) for member in group.members}
    found: dict[str, ScaleGroup] = {}
    for node in filter(is_member, model.graph):
        quantized, scale = reading.name(node.outputs[0]), reading.scale(node)
        assert scale is not None
        member = Member(reading.name(node.inputs[0]), quantized, float(scale.reshape(-1)[0]), scale.dtype)
        group = tied.get(quantized) or ScaleGroup((member,), (), "certain")
        found.setdefault(group.members[0].quantized, group)
    return tuple(found.values())


def _left(model: ir.Model, exclude: Sequence[str]) -> Iterator[tuple[ir.Node, str]]:
    """Yield the layers that get no int8 weights whatever their ranges, and why."""
    left = excluded(model, exclude)
    for node in model.graph:
        if node.op_type not in reading.WEIGHTED or node.domain not in ("", "ai.onnx"):
            continue
        if node in left:
            yield node, f"excluded by '{left[node]}'"
        elif node.op_type == "ConvTranspose":
            yield node, "transposed convolutions stay float"
        elif not is_weighted(node):
            yield node, "its weight is not a constant"
