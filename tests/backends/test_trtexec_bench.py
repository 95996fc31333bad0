"""Timing through trtexec: the program is not here, so what it exports is read from files, and what it lacks refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtq.backends import trtexec_bench
from trtq.backends.measuring import BenchOptions
from trtq.errors import MissingBackendError
from trtq.layers.trtexec_times import TrtexecTimes, read_times

ENGINES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines"


def test_without_trtexec_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRTEXEC", str(tmp_path / "trtexec"))
    with pytest.raises(MissingBackendError, match="trtexec is not here"):
        trtexec_bench.TrtexecTimer(tmp_path / "e.plan", BenchOptions())


def test_the_warm_up_is_left_out_and_copies_are_told_apart() -> None:
    starts = (0.0, 100.0, 200.0, 300.0)
    ends = tuple(start + 90 for start in starts)
    times = TrtexecTimes((90.0,) * 4, (70.0,) * 4, (15.0,) * 4, (5.0,) * 4, starts, ends, starts, ends, starts, ends)
    found = trtexec_bench.counted(times, 150.0, 9.0)
    assert (found.compute_us, found.to_device_us, found.to_host_us) == ((70.0,) * 2, (15.0,) * 2, (5.0,) * 2)
    assert found.enqueue_us == (90.0,) * 2 and found.wall_s == pytest.approx(190e-6)


@pytest.mark.skipif(not ENGINES.is_dir(), reason="the recorded engine files are not beside this checkout")
def test_recorded_times_of_a_run_without_copies() -> None:
    found = trtexec_bench.counted(read_times(ENGINES / "trt8-resnet18-a100" / "qat.timing.json"), 200_000.0, 9.0)
    assert len(found.compute_us) == len(found.enqueue_us) == 3392 and found.to_device_us == ()
    assert len(found.compute_us) / found.wall_s == pytest.approx(1130.01, rel=1e-5)
