from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from trtq.machine import packages


def test_versions_are_those_of_the_installed_packages() -> None:
    assert packages.version("no-such-package", "onnx") == metadata.version("onnx")
    assert packages.version("no-such-package") is None
    assert packages.installed(("numpy", "no-such-package")) == (("numpy", metadata.version("numpy")),)


def test_flavours_of_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "aarch64-linux-gnu"
    folder.mkdir()
    for name in ("libnvinfer.so.10", "libnvinfer.so.10.3.0", "libnvinfer.so.8.6.2", "libnvinfer_plugin.so.10.9.0"):
        (folder / name).touch()
    here = {"tensorrt-cu12": "10.3.0", "tensorrt-rtx-cu13-bindings": "1.7.1.116", "onnx": "1"}
    monkeypatch.setattr(packages, "LIBRARIES", tmp_path)
    monkeypatch.setattr(packages, "version", lambda *names: next((here[one] for one in names if one in here), None))
    assert packages.tensorrts() == (("tensorrt", "10.3.0"), ("tensorrt-rtx", "1.7.1.116"), ("libnvinfer", "10.3.0"))
