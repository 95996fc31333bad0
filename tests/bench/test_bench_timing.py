from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from trtq import backends
from trtq.backends.launch import Times
from trtq.backends.measuring import BenchOptions
from trtq.bench import interleaved, measure
from trtq.bench.timing import Rounds, Timed, plan_rounds
from trtq.errors import ConfigError, ModelError
from trtq.machine.clocks import Watch

NETWORK = """<ir_version: 8, opset_import: ["": 17]>
network (float[N, 3, 16, 16] image) => (float[N, 3, 16, 16] out) { out = Relu(image) }"""


@pytest.fixture
def session(tmp_path: Path) -> backends.Session:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    path = tmp_path / "network.onnx"
    onnx.save(onnx.parser.parse_model(NETWORK), path)
    return backends.runner("ort").load(path)


class Watched:
    """A real session that writes down when it ran."""

    def __init__(self, name: str, inner: backends.Session, log: list[str]) -> None:
        self.inputs, self.outputs, self.name, self.inner, self.log = inner.inputs, inner.outputs, name, inner, log

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.log.append(self.name)
        return self.inner.run(feeds)


class Timer:
    """Runs of a fixed length, which are counted instead of waited for; the last third takes 20 % longer."""

    def __init__(self, name: str, run_us: float, log: list[str], *, copies: bool = False) -> None:
        self.name, self.run_us, self.log, self.copies, self.turns = name, run_us, log, copies, 0

    def time(self, *, iterations: int, duration_s: float = 0.0) -> Times:
        self.log.append(self.name)
        self.turns += 1
        count = max(iterations, round(duration_s * 1e6 / self.run_us))
        compute = (self.run_us * (1.2 if self.turns > 130 else 1.0),) * count
        copied = ((2.0,) * count, (3.0,) * count) if self.copies else ((), ())
        return Times(compute, (1.0,) * count, *copied, wall_s=count * self.run_us / 1e6)


def timed(name: str, timer: Timer, **options: Any) -> Timed:
    return Timed(name, timer, "trt", "TensorRT 10.3.0", 4, **options)


def test_sessions_run_in_turn_and_the_warm_up_is_not_counted(session: backends.Session) -> None:
    log: list[str] = []
    sessions = {name: Watched(name, session, log) for name in "ab"}
    feeds = {"image": np.ones((4, 3, 16, 16), np.float32)}
    results = interleaved(
        sessions, feeds, warmup=2, iterations=5, backends={"a": "ort"}, machine={"cpu": "x"}
    )  # fmt: skip
    assert log == ["a", "b"] * 7
    assert [(one.name, one.backend, one.batch, len(one.times_us)) for one in results.values()] == [
        ("a", "ort", 4, 5), ("b", "", 4, 5)
    ]  # fmt: skip
    assert results["a"].run == results["b"].run != "" and results["a"].rounds == (1,) * 5
    assert min(results["a"].times_us) > 0


def test_the_clock_runs_around_one_run_only(session: backends.Session) -> None:
    ticks = iter(range(0, 10**9, 2500))
    feeds = {"image": np.ones((1, 3, 16, 16), np.float32)}
    results = interleaved({"a": session, "b": session}, feeds, warmup=1, iterations=3, clock=lambda: next(ticks))
    assert results["a"].times_us == results["b"].times_us == (2.5, 2.5, 2.5)


def test_impossible_requests_are_refused(session: backends.Session) -> None:
    feeds = {"image": np.ones((1, 3, 16, 16), np.float32)}
    for sessions, inputs, iterations in (({}, feeds, 1), ({"a": session}, {}, 1), ({"a": session}, feeds, 0)):
        with pytest.raises(ConfigError):
            interleaved(sessions, inputs, warmup=0, iterations=iterations)
    with pytest.raises(ModelError):
        interleaved({"a": session}, {"image": np.ones((1, 3), np.float32)}, warmup=0, iterations=1)
    with pytest.raises(ConfigError, match="at least one engine"):
        measure({}, BenchOptions(), Watch(gpu=False))


@pytest.mark.parametrize(
    ("options", "run_s", "slice_s", "expected"),
    [
        (BenchOptions(), 0.001, 0.0, Rounds(100, 0.1, 1)),
        (BenchOptions(), 0.25, 0.0, Rounds(40, 0.25, 1)),
        (BenchOptions(), 5.0, 0.0, Rounds(10, 1.0, 1)),
        (BenchOptions(), 0.0, 2.0, Rounds(5, 2.0, 2)),
        (BenchOptions(duration_s=0, iterations=1000), 0.001, 0.0, Rounds(100, 0.0, 10)),
        (BenchOptions(duration_s=0, iterations=3), 0.001, 0.0, Rounds(3, 0.0, 1)),
    ],
)
def test_a_measurement_is_cut_into_rounds(
    options: BenchOptions, run_s: float, slice_s: float, expected: Rounds
) -> None:
    assert plan_rounds(options, run_s, slice_s) == expected


def test_every_engine_runs_once_a_round_and_both_limits_are_reached() -> None:
    log: list[str] = []
    engines = {name: timed(name, Timer(name, 1000.0, log)) for name in "abc"}
    seen: list[tuple[int, int]] = []
    watch = Watch(gpu=False)
    results = measure(
        engines, BenchOptions(iterations=5000), watch, machine={"cores": 4}, progress=lambda *one: seen.append(one)
    )
    # After the warm-up every turn begins with a run that is not counted.
    turns = log[3::2]
    assert log[3:] == [one for one in turns for _ in range(2)] and len(turns) == 300
    rounds = [turns[start : start + 3] for start in range(0, 300, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds) and len(set(map(tuple, rounds))) > 3
    assert seen[-1] == (100, 100) and len(watch.readings) >= 2
    for one in results.values():
        assert one.rounds == (100,) * 100 and one.wall_s == pytest.approx(10.0, rel=0.3)
        assert one.options["cuda_graph"] is True and one.options["profiled"] is False and one.batch == 4
        assert one.parts_us.keys() == {"enqueue"} and any("drifted by +20 %" in note for note in one.notes)


def test_copies_are_part_of_a_run_and_told_apart() -> None:
    engine = timed("a", Timer("a", 1000.0, [], copies=True))
    one = measure({"a": engine}, BenchOptions(duration_s=0.1), Watch(gpu=False))["a"]
    assert set(one.times_us) == {1005.0}
    assert (one.part_us("compute"), one.part_us("to_device"), one.part_us("to_host")) == (1000.0, 2.0, 3.0)


def test_what_warms_up_itself_is_not_warmed_up() -> None:
    log: list[str] = []
    engine = timed("a", Timer("a", 1000.0, log), slice_s=2.0, warms_up_itself=True)
    one = measure({"a": engine}, BenchOptions(), Watch(gpu=False))["a"]
    assert log == ["a"] * 5 and one.rounds == (2000,) * 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"streams": 0},
        {"duration_s": -1},
        {"warm_up_ms": float("nan")},
        {"batch": 0},
        {"seed": -1},
        {"threads": 100_000},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BenchOptions(**wrong)
