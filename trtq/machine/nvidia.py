"""NVIDIA's driver, GPUs and CUDA, as far as files and the driver's own `nvidia-smi` tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
GPUS = Path("/proc/driver/nvidia/gpus")
CUDA = Path("/usr/local/cuda")
QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits")
QUERY_TIMEOUT_S = 10.0
QUERY_FIELDS = 3


@dataclass(frozen=True)
class Gpu:
    """A GPU: `sm` as "sm86", None where only files were read; `memory_mib` is None where shared or unknown."""

    name: str
    sm: str | None = None
    memory_mib: int | None = None


def listed_gpus(folder: Path = GPUS) -> tuple[Gpu, ...]:
    """Return the GPUs that the driver lists in its files, by name alone; none where there is no driver."""
    texts = (text_of(path) for path in sorted(folder.glob("*/information")))
    return tuple(Gpu(name) for text in texts if (name := model_of(text)))


def asked_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that `nvidia-smi` lists, with SM and memory; `listed_gpus` where it is missing or fails."""
    if shutil.which(QUERY[0]) is None:
        return listed_gpus()
    try:
        ran = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return listed_gpus()
    return (parse_query(ran.stdout) if ran.returncode == 0 else ()) or listed_gpus()


def driver_version(path: Path = DRIVER) -> str | None:
    """Return the kernel driver's version, None where none is loaded."""
    return parse_driver(text_of(path))


def cuda_version(folder: Path = CUDA) -> str | None:
    """Return the version of the CUDA toolkit in `folder`, None where there is none."""
    return parse_cuda_json(text_of(folder / "version.json")) or parse_cuda_text(text_of(folder / "version.txt"))


def parse_query(text: str) -> tuple[Gpu, ...]:
    """Read lines of `name, 8.6, 12288`; a field that the driver does not know is `[N/A]` (memory of a GB10)."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", QUERY_FIELDS - 1)]
        if len(fields) == QUERY_FIELDS and fields[0]:
            found.append(Gpu(fields[0], _sm(fields[1]), int(fields[2]) if fields[2].isdecimal() else None))
    return tuple(found)


def parse_driver(text: str) -> str | None:
    """Read /proc/driver/nvidia/version, of the closed or the open kernel module."""
    found = re.search(r"Kernel Module (?:for \S+ )?\s*(\d+(?:\.\d+)+)", text)
    return None if found is None else found[1]


def model_of(text: str) -> str | None:
    """Read the name in /proc/driver/nvidia/gpus/*/information."""
    found = re.search(r"^Model:\s*(\S.*?)\s*$", text, re.MULTILINE)
    return None if found is None else found[1]


def parse_cuda_json(text: str) -> str | None:
    """Read a toolkit's version.json: its runtime's version, or the kit's own, where the last number may be a date."""
    try:
        document = json.loads(text)
        parts = [document[key]["version"] for key in ("cuda_cudart", "cuda") if key in document]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return str(parts[0]) if parts else None


def parse_cuda_text(text: str) -> str | None:
    """Read version.txt, which toolkits up to 10.2 have."""
    found = re.search(r"CUDA Version (\d+(?:\.\d+)+)", text)
    return None if found is None else found[1]


def text_of(path: Path) -> str:
    """Return what a file of the system holds, an empty string where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _sm(capability: str) -> str | None:
    major, _, minor = capability.partition(".")
    return f"sm{major}{minor}" if major.isdecimal() and minor.isdecimal() else None
