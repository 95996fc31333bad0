"""Policies, leaving groups out, statistics, and measuring before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from tests.qdq.qdq_graphs import Network, run, scales
from trtq import qdq
from trtq.errors import ConfigError, DataError
from trtq.qdq import Choice, Statistics
from trtq.qdq.statistics import sqnr_db

RANDOM = np.random.default_rng(3)


def quantized(values: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.rint(values / scale), -128, 127) * scale


def two_groups() -> Network:
    """x and z joined by a Concat, one of them eight times finer; y quantized twice."""
    network = Network()
    for name in ("x", "z", "y"):
        network.input(name)
    network.pair("x", 0.01)
    network.pair("z", 0.08)
    network.pair(network.concat("x", "z", out="joined"), 0.04)
    network.pair("y", 0.02)
    network.pair("y", 0.03)
    return network


def observing(*images: dict[str, np.ndarray]) -> qdq.Observe:
    def observe(model: ir.Model, tensors: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        proto = ir.to_proto(model)
        shown = {value.name for value in proto.graph.output}
        for name in tensors:
            if name not in shown and name not in images[0]:
                proto.graph.output.append(ir.to_proto(ir.Value(name=name)))
        names = [name for name in tensors if name not in images[0]]
        for feeds in images:
            yield {**dict(zip(names, run(proto, feeds, names), strict=True)), **feeds}

    return observe


def image(spread: float = 0.4) -> dict[str, np.ndarray]:
    return {name: (RANDOM.standard_normal((1, 4, 6, 6)) * spread).astype(np.float32) for name in ("x", "z", "y")}


@pytest.mark.parametrize(
    ("values", "within_db"),
    [
        (RANDOM.standard_normal(100_000), 0.15),
        (np.maximum(RANDOM.standard_normal(100_000), 0), 0.15),
        (RANDOM.laplace(size=100_000), 0.15),
        (RANDOM.uniform(-1, 1, 100_000), 0.15),
    ],
    ids=["normal", "after Relu", "heavy tails", "uniform"],
)
@pytest.mark.parametrize("scale", [0.004, 0.01, 0.03, 0.1, 0.4])
def test_statistics_predict_the_noise_of_int8(values: np.ndarray, within_db: float, scale: float) -> None:
    """From fine steps, where values clip, to ones so coarse that most values round to zero."""
    found = Statistics.of(values[:60_000]) + Statistics.of(values[60_000:])
    assert found.power == pytest.approx(np.mean(values**2), rel=1e-9)
    noise = np.mean((quantized(values, scale) - values) ** 2)
    assert abs(10 * math.log10(found.noise(scale) / noise)) < within_db
    assert found.sqnr_db(scale) == pytest.approx(10 * math.log10(found.power / noise), abs=within_db)


def test_no_signal_loses_nothing() -> None:
    nothing = Statistics.of(np.zeros(10))
    assert nothing.power == nothing.noise(0.1) == 0
    assert nothing.sqnr_db(0.1) == nothing.sqnr_db(10) == sqnr_db(1, 0) == pytest.approx(140)


def test_the_three_policies() -> None:
    chosen = {}
    for policy in ("max", "output", "weighted"):
        report = qdq.unify(two_groups().model(), policy)
        chosen[policy] = [one.scale for one in report.groups]
    assert chosen["max"] == pytest.approx([0.08, 0.03])
    assert chosen["output"] == pytest.approx([0.04, 0.03])
    assert chosen["weighted"] == pytest.approx([(0.01 * 0.08 * 0.04) ** (1 / 3), math.sqrt(0.02 * 0.03)])


def test_weighted_by_statistics_has_the_least_noise_of_all_scales() -> None:
    """Each member's noise counts relative to its own power, rounding and clipping alike."""
    images = [image(), image()]
    report = qdq.unify(two_groups().model(), Choice("weighted", calibration=observing(*images)))
    values = {name: np.concatenate([one[name].ravel() for one in images]) for name in "xz"}
    values["joined"] = np.concatenate([values["x"], values["z"]])

    def cost(scale: float) -> float:
        return sum(float(np.mean((quantized(one, scale) - one) ** 2) / np.mean(one**2)) for one in values.values())

    least = min(map(cost, np.geomspace(0.01, 0.08, 100)))
    assert cost(report.groups[0].scale) < 1.1 * least
    assert cost(report.groups[0].scale) < cost(0.08) / 4


def test_predictions_from_statistics_know_what_clips() -> None:
    """Without them a finer step counts as no loss; with them its clipping shows."""
    network = two_groups()
    loud = {**image(), "z": image(3.0)["z"]}
    blind = qdq.unify(network.model(), "output").groups[0]
    seeing = qdq.unify(network.model(), Choice("output", calibration=observing(loud))).groups[0]
    place = blind.group.tensors.index("z")
    assert blind.predicted_db[place] == 0
    assert seeing.predicted_db[place] > 5


@pytest.mark.parametrize(
    ("words", "left", "reason"),
    [
        (("Concat",), [True, False], "Concat joins it"),
        (("z",), [True, False], "'z' was named"),
        (("joined", "y"), [True, True], "'joined' was named"),
    ],
)
def test_leave_by_tensor_or_operator(words: tuple[str, ...], left: list[bool], reason: str) -> None:
    model = two_groups().model()
    before = scales(model)
    report = qdq.unify(model, Choice(leave=words))
    document = report.to_json()["groups"]
    assert [one["left"] for one in document] == left
    assert document[0]["reason"] == reason and document[0]["scale"] is None
    assert document[0]["predicted_loss_db"] == pytest.approx(18.06, abs=0.01)
    after = scales(model)
    assert {name for name in before if name[0] in "xzj"} == {
        name for name in before if before[name] == after[name] and name[0] in "xzj"
    }
    assert bool(report.edits) != all(left)


def test_a_word_that_names_no_group_is_refused_and_nothing_changes() -> None:
    model = two_groups().model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(ConfigError, match=r"leave 'Concatenate'.*did you mean 'Concat'"):
        qdq.unify(model, Choice(leave=("Concatenate",)))
    with pytest.raises(ConfigError, match="operators that join groups here: Concat"):
        qdq.unify(model, Choice(leave=("######",)))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_max_loss_leaves_the_costly_groups() -> None:
    report = qdq.unify(two_groups().model(), Choice(max_loss_db=10))
    assert [bool(one.left) for one in report.groups] == [True, False]
    assert report.groups[0].left == "predicted loss 18.06 dB, more than 10"
    assert {edit.tensor for edit in report.edits} == {"y", "y_7_q"}


def test_left_groups_stay_left_and_the_rest_is_idempotent() -> None:
    model = two_groups().model()
    choice = Choice("weighted", max_loss_db=10)
    assert qdq.unify(model, choice).edits
    assert not qdq.unify(model, choice).edits


def test_measured_loss_is_that_of_the_dequantized_tensors() -> None:
    images = [image(), image()]
    network = two_groups()
    report = qdq.unify(network.model(), Choice(measurement=observing(*images)))
    joined, twice = report.groups
    assert joined.measured is not None and twice.measured is not None
    for one in (joined, twice):
        assert one.measured is not None
        for member, loss in zip(one.group.members, one.measured.losses_db, strict=True):
            values = np.concatenate([_values(feeds, member.tensor) for feeds in images])
            noises = [np.mean((quantized(values, scale) - values) ** 2) for scale in (member.scale, one.scale)]
            assert loss == pytest.approx(10 * math.log10(noises[1] / noises[0]), abs=0.01)
    assert joined.measured_loss_db == pytest.approx(joined.predicted_loss_db, abs=0.5)


def test_output_change_is_that_of_one_group_alone_and_then_of_all() -> None:
    feeds = image()
    network = two_groups()
    proto, model = network.proto(), network.model()
    report = qdq.unify(model, Choice(measurement=observing(feeds)))
    names = [value.name for value in proto.graph.output]
    before, after = run(proto, feeds, names), run(ir.to_proto(model), feeds, names)
    largest = {name: float(np.abs(one - other).max()) for name, one, other in zip(names, before, after, strict=True)}
    assert {one.output: pytest.approx(one.largest, abs=1e-6) for one in report.output_change} == largest
    for group in report.groups:
        assert group.measured is not None
        own = {name for member in group.group.members for name in names if name.startswith(member.tensor)}
        moved = {one.output for one in group.measured.outputs if one.largest}
        assert moved and moved <= own


def test_measured_loss_decides_where_there_is_one() -> None:
    """All of x is exact at its own step and at the shared one: predicted 18 dB, measured none."""
    feeds = image()
    feeds["x"] = (np.rint(feeds["x"] / 0.08) * 0.08).astype(np.float32)
    network = Network()
    for name in ("x", "z", "y"):
        network.input(name)
    network.pair("x", 0.01)
    network.pair("x", 0.08)
    network.op("Add", "z", "y")
    choice = Choice(max_loss_db=1)
    assert qdq.unify(network.model(), choice).groups[0].left.startswith("predicted")
    report = qdq.unify(network.model(), Choice(max_loss_db=1, measurement=observing(feeds)))
    assert report.edits and not report.groups[0].left


def test_no_images_to_measure_or_calibrate_on_is_said() -> None:
    def nothing(model: ir.Model, tensors: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        return iter(())

    for choice in (Choice(measurement=nothing), Choice(calibration=nothing)):
        with pytest.raises(DataError, match=r"there are no (calibration )?images"):
            qdq.unify(two_groups().model(), choice)


def test_a_chosen_scale_is_one_that_half_precision_holds() -> None:
    network = Network(opset=19)
    network.input("x")
    half = network.op("Cast", "x", to=10)
    for number, scale in enumerate((0.0123, 0.0321)):
        place = network.constant(f"half{number}", np.float16(scale))
        values = network.op("DequantizeLinear", network.op("QuantizeLinear", half, place, "zero"), place, "zero")
        network.op("Cast", values, to=1)
    model = network.model()
    (group,) = qdq.unify(model, "weighted").groups
    assert group.scale == float(np.float16(group.scale)) and 0.0123 < group.scale < 0.0321
    assert not qdq.unify(model, "weighted").edits


def _values(feeds: dict[str, np.ndarray], tensor: str) -> np.ndarray:
    if tensor == "joined":
        return np.concatenate([feeds["x"], feeds["z"]], axis=1).ravel()
    return feeds[tensor].ravel()
