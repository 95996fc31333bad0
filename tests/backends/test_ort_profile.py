"""ONNX Runtime's profiler: each operator that runs, once, with its time."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install trtq[ort])")

from tests.backends import ort_networks as nets
from trtq.backends.ort_profile import profile
from trtq.errors import ModelError


def test_every_operator_that_runs_has_a_time(tmp_path: Path) -> None:
    found = profile(nets.float_network(tmp_path / "net.onnx"), {"x": nets.images(1)}, runs=5)
    assert sum(node.operator == "Conv" for node in found) == len(nets.SHAPES)
    assert len({node.name for node in found}) == len(found)
    assert all(node.median_us >= 0 for node in found)
    assert sum(node.median_us for node in found) > 0


def test_feeds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wants inputs"):
        profile(nets.float_network(tmp_path / "net.onnx"), {"z": nets.images(1)}, runs=1)
