"""What the files that `trtq bench` is given are: results or engines, told apart by one look at each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.bench.test_bench_ingest import log, times
from trtq.backends import manifest
from trtq.bench import BenchResult, BenchRun, session, store
from trtq.bench.engines import Candidate
from trtq.errors import ModelError


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path)
    times(tmp_path, "run.times.json", warm_up_ms=500)
    store.save(BenchRun("20260101T000000Z", (BenchResult("a", "ort", 1, (1.0,)),)), tmp_path / "stored.json")
    opened: Counter[str] = Counter()
    opens = Path.open

    def counted(path: Path, *given: Any, **named: Any) -> Any:
        opened[path.name] += 1
        return opens(path, *given, **named)

    monkeypatch.setattr(Path, "open", counted)
    for name in ("run.log", "run.times.json", "stored.json"):
        opened.clear()
        assert session.measured(tmp_path / name) is not None
        assert opened[name] == 1 and max(opened.values()) == 1, opened


def test_engines_are_no_results(tmp_path: Path) -> None:
    binary, described, plan = tmp_path / "engine.bin", tmp_path / "engine", tmp_path / "e.plan"
    binary.write_bytes(b"ftrt\0\0")
    described.write_text("never looked at")
    manifest.path_of(described).write_text("{}")
    for path in (binary, described, plan):
        assert session.measured(path) is None


@pytest.mark.parametrize(("text", "words"), [("hello", "is text, but"), ("", "is text, but"), ("[]", "is JSON, but")])
def test_what_is_neither_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(text)
    with pytest.raises(ModelError, match=words):
        session.measured(path)


def test_engines_and_results_of_one_name_are_told_apart(tmp_path: Path) -> None:
    engine, result = Candidate("net", tmp_path / "a" / "net.onnx", "ort"), BenchResult("net", "trt", 1, (1.0,))
    engines, results = session.named_apart([engine], [(result, tmp_path / "b" / "net.log")])
    assert (engines[0].name, results[0].name) == ("a/net", "b/net")
