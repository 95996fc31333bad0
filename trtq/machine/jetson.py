"""Jetson: which module, which L4T and JetPack, which power mode, and the container image that fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trtq.machine.nvidia import Gpu, text_of

DEVICE_TREE = Path("/proc/device-tree")
RELEASE = Path("/etc/nv_tegra_release")
POWER_STATUS = Path("/var/lib/nvpmodel/status")
POWER_MODES = Path("/etc/nvpmodel.conf")

# The GPU inside each chip, by the device tree's `compatible`. Source: NVIDIA's CUDA GPU list; TensorRT names Thor's
# compute capability 11.0.
CHIPS = {
    "nvidia,tegra210": Gpu("Tegra X1", "sm53"),
    "nvidia,tegra186": Gpu("Tegra X2", "sm62"),
    "nvidia,tegra194": Gpu("Xavier", "sm72"),
    "nvidia,tegra234": Gpu("Orin", "sm87"),
    "nvidia,tegra264": Gpu("Thor", "sm110"),
}


@dataclass(frozen=True)
class JetPack:
    """A release: its L4T, what it brings, and NVIDIA's container image with its TensorRT (None: there is none)."""

    l4t: str
    jetpack: str
    tensorrt: str
    cuda: str
    python: str
    image: str | None


_IMAGES = "nvcr.io/nvidia/l4t-tensorrt"
_R82 = ("8.2.1", "10.2", "3.6", None)
_R85 = ("8.5.2", "11.4", "3.8", f"{_IMAGES}:r8.5.2-runtime")
_R103 = ("10.3.0", "12.6", "3.10", f"{_IMAGES}:r10.3.0-runtime")
# Source: NVIDIA's JetPack archive and release notes; the images of public Dockerfiles that use them.
JETPACKS = (
    JetPack("32.6.1", "4.6", "8.0.1", "10.2", "3.6", None),
    JetPack("32.7.1", "4.6.1", *_R82),
    JetPack("32.7.2", "4.6.2", *_R82),
    JetPack("32.7.3", "4.6.3", *_R82),
    JetPack("32.7.4", "4.6.4", *_R82),
    JetPack("35.1.0", "5.0.2", "8.4.1", "11.4", "3.8", "nvcr.io/nvidia/l4t-jetpack:r35.1.0"),
    JetPack("35.2.1", "5.1", *_R85),
    JetPack("35.3.1", "5.1.1", *_R85),
    JetPack("35.4.1", "5.1.2", *_R85),
    JetPack("35.5.0", "5.1.3", *_R85),
    JetPack("35.6.0", "5.1.4", *_R85),
    JetPack("35.6.1", "5.1.5", *_R85),
    JetPack("36.3.0", "6.0", "8.6.2", "12.2", "3.10", f"{_IMAGES}:r8.6.2-runtime"),
    JetPack("36.4.0", "6.1", *_R103),
    JetPack("36.4.3", "6.2", *_R103),
    JetPack("36.4.4", "6.2.1", *_R103),
    JetPack("36.5.0", "6.2.2", *_R103),
    JetPack("38.2.0", "7.0", "10.13", "13.0", "3.12", None),
    JetPack("38.4.0", "7.1", "10.13", "13.0", "3.12", None),
    JetPack("39.2.0", "7.2", "10.16.2", "13.2", "3.12", None),
    JetPack("39.2.1", "7.2.1", "10.16.2", "13.2", "3.12", None),
)


@dataclass(frozen=True)
class Jetson:
    """A Jetson; None stands for what its files do not tell, as in a container that does not see them."""

    model: str
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    gpu: Gpu | None


def this_jetson(tree: Path = DEVICE_TREE) -> Jetson | None:
    """Return what this Jetson is, None on any other machine; reads files only."""
    l4t = parse_l4t(text_of(RELEASE))
    gpu = parse_chip(text_of(tree / "compatible"))
    if l4t is None and gpu is None:
        return None
    release = None if l4t is None else jetpack_of(l4t)
    return Jetson(
        model=parse_model(text_of(tree / "model")) or "Jetson",
        l4t=l4t,
        jetpack=None if release is None else release.jetpack,
        power_mode=parse_power_mode(text_of(POWER_STATUS), text_of(POWER_MODES)),
        gpu=gpu,
    )


def jetpack_of(l4t: str) -> JetPack | None:
    """Return the release that an L4T version belongs to: its own, or the latest before it in the same minor version.

    Security updates of L4T (36.4.7) keep the JetPack of the release that they mend (36.4.4: 6.2.1).
    """
    wanted = _numbers(l4t)
    fitting = [one for one in JETPACKS if _numbers(one.l4t)[:2] == wanted[:2] and _numbers(one.l4t) <= wanted]
    return max(fitting, key=lambda one: _numbers(one.l4t), default=None)


def parse_l4t(text: str) -> str | None:
    """Read /etc/nv_tegra_release: `# R36 (release), REVISION: 4.3, ...` is 36.4.3."""
    found = re.search(r"^# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text, re.MULTILINE)
    return None if found is None else f"{found[1]}.{found[2]}"


def parse_model(text: str) -> str | None:
    """Read the device tree's model, which ends with a zero byte."""
    return text.rstrip("\0").strip() or None


def parse_chip(text: str) -> Gpu | None:
    """Read the device tree's `compatible`: names between zero bytes, the board's first, the chip's last."""
    return next((CHIPS[name] for name in text.split("\0") if name in CHIPS), None)


def parse_power_mode(status: str, modes: str) -> str | None:
    """Return nvpmodel's mode by name: its number is in `status` (`pmode:0002`), its name in `modes` (nvpmodel.conf)."""
    number = re.search(r"pmode:(\d+)", status)
    if number is None:
        return None
    found = re.search(rf"^<\s*POWER_MODEL\s+ID={int(number[1])}\s+NAME=(\S+)\s*>", modes, re.MULTILINE)
    return found[1] if found else f"mode {int(number[1])}"


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(map(int, version.split(".")))
    return numbers + (0,) * (3 - len(numbers))
