"""What this machine is: the part that decides which kernels run, and so which bytes and times come out."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
# Kernel libraries choose by these: x86 vector and matrix units, then Arm's.
INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
PACKAGES = (
    "numpy", "onnx", "onnx-ir", "onnxruntime", "torch", "torchvision", "pytorch-quantization", "tensorrt",
    "tensorrt-rtx-cu12", "pycocotools", "scikit-learn", "pillow", "graphviz",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine and the software on it; `cores` are those that this process may use."""

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_mib: int
    platform: str
    python: str
    packages: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, packages as an object of versions by name."""
        return {**asdict(self), "instruction_sets": list(self.instruction_sets), "packages": dict(self.packages)}


def machine() -> Machine:
    """Describe the machine that this process runs on; starts no program and imports no package to ask it."""
    facts = cpu_facts(CPU_INFO.read_text(errors="replace") if CPU_INFO.is_file() else "")
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return Machine(
        cpu=facts.get("model name") or facts.get("Model") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        platform=platform.platform(),
        python=platform.python_version(),
        packages=tuple((name, version) for name in PACKAGES if (version := _version(name))),
    )


def cpu_facts(text: str) -> dict[str, str]:
    """Return the first value of each key in the text of /proc/cpuinfo: every core repeats them."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            facts.setdefault(key.strip(), value.strip())
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
