"""What this machine is: the part that decides which kernels run, and so which bytes and times come out."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtq.machine.jetson import Jetson, this_jetson
from trtq.machine.nvidia import Gpu, asked_gpus, cuda_version, driver_version, listed_gpus
from trtq.machine.packages import CUDA_RUNTIMES, installed, tensorrts, version

__all__ = ["Gpu", "Jetson", "Machine", "cpu_facts", "machine"]

CPU_INFO = Path("/proc/cpuinfo")
# Kernel libraries choose by these: x86 vector and matrix units, then Arm's.
INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine and the software on it; `cores` are those that this process may use.

    gpus: discrete ones and a Jetson's own. driver, cuda: versions of NVIDIA's kernel driver and of the CUDA toolkit or
    runtime, None where there is none. tensorrt: the flavours that are installed, with their versions.
    """

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_mib: int
    platform: str
    python: str
    packages: tuple[tuple[str, str], ...]
    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    tensorrt: tuple[tuple[str, str], ...]
    jetson: Jetson | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, versions as objects by name."""
        return {
            **asdict(self),
            "instruction_sets": list(self.instruction_sets),
            "packages": dict(self.packages),
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "tensorrt": dict(self.tensorrt),
        }


def machine(*, ask_driver: bool = False) -> Machine:
    """Describe the machine that this process runs on; reads files only: it starts no program and imports no package.

    ask_driver: start `nvidia-smi` where there is one, for the SM and memory of GPUs, which no file tells.
    """
    facts = cpu_facts(CPU_INFO.read_text(errors="replace") if CPU_INFO.is_file() else "")
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    board = this_jetson()
    return Machine(
        cpu=facts.get("model name") or facts.get("Model") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        platform=platform.platform(),
        python=platform.python_version(),
        packages=installed(),
        # A Jetson's nvidia-smi, where it has one, knows less about its own GPU than the chip's name tells.
        gpus=(board.gpu,) if board and board.gpu else asked_gpus() if ask_driver else listed_gpus(),
        driver=driver_version(),
        cuda=cuda_version() or version(*CUDA_RUNTIMES),
        tensorrt=tensorrts(),
        jetson=board,
    )


def cpu_facts(text: str) -> dict[str, str]:
    """Return the first value of each key in the text of /proc/cpuinfo: every core repeats them."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            facts.setdefault(key.strip(), value.strip())
    return facts
