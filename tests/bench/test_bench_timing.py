from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from trtq import backends
from trtq.bench import interleaved
from trtq.errors import ConfigError, ModelError

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

    def __init__(self, name: str, session: backends.Session, log: list[str]) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self.name, self.session, self.log = name, session, log

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.log.append(self.name)
        return self.session.run(feeds)


def test_sessions_take_turns_and_every_time_is_kept(session: backends.Session) -> None:
    log: list[str] = []
    sessions = {name: Watched(name, session, log) for name in ("a", "b")}
    feeds = {"image": np.ones((4, 3, 16, 16), np.float32)}
    results = interleaved(sessions, feeds, warmup=2, iterations=5, backends={"a": "ort"}, machine={"cpu": "x"})
    assert log == ["a", "b"] * 7
    assert [(one.name, one.backend, one.batch, len(one.times_us)) for one in results.values()] == [
        ("a", "ort", 4, 5), ("b", "", 4, 5)
    ]  # fmt: skip
    assert results["a"].machine == {"cpu": "x"}
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
