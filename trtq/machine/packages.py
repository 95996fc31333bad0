"""Versions of what is installed, without importing any of it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy", "onnx", "onnx-ir", "onnxruntime", "torch", "torchvision", "pytorch-quantization", "tensorrt",
    "tensorrt-rtx-cu12", "pycocotools", "scikit-learn", "pillow", "graphviz",
)  # fmt: skip
# TensorRT's flavours, and the packages that may bring each.
TENSORRTS = {
    flavour: (flavour, *(f"{flavour}-cu{cuda}{suffix}" for cuda in (13, 12, 11) for suffix in ("", "-bindings")))
    for flavour in ("tensorrt", "tensorrt-lean", "tensorrt-dispatch", "tensorrt-rtx")
}
CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
LIBRARIES = Path("/usr/lib")


def version(*names: str) -> str | None:
    """Return the version of the first of these packages that is installed, None where none is."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def installed(names: tuple[str, ...] = PACKAGES) -> tuple[tuple[str, str], ...]:
    """Return the installed ones of these packages with their versions."""
    return tuple((name, found) for name in names if (found := version(name)))


def tensorrts() -> tuple[tuple[str, str], ...]:
    """Return TensorRT's flavours here with their versions: Python packages, and `libnvinfer`, the C++ library."""
    found = [(flavour, one) for flavour, names in TENSORRTS.items() if (one := version(*names))]
    library = library_version([path.name for path in LIBRARIES.glob("*-linux-gnu/libnvinfer.so.*")])
    return (*found, ("libnvinfer", library)) if library else tuple(found)


def library_version(names: list[str]) -> str | None:
    """Return the newest version in file names such as libnvinfer.so.10.3.0; links (libnvinfer.so.10) do not count."""
    versions = [found[1] for name in names if (found := re.fullmatch(r"libnvinfer\.so\.(\d+\.\d+\.\d+)", name))]
    return max(versions, key=lambda one: tuple(map(int, one.split("."))), default=None)
