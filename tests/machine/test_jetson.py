"""The texts are what Jetsons hold, as their owners published them; the sources of JETPACKS are named beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtq.machine import jetson
from trtq.machine.jetson import JETPACKS, Jetson, jetpack_of, parse_chip, parse_l4t, parse_power_mode, this_jetson
from trtq.machine.nvidia import Gpu

R36 = (
    "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 22:54:44 UTC "
    "2025\n"
    "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
    "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n"
)
R32 = (
    "# R32 (release), REVISION: 5.1, GCID: 26202423, BOARD: t186ref, EABI: aarch64, DATE: Fri Feb 19 16:50:29 UTC 2021"
)
MODEL = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super\0"
COMPATIBLE = "nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234\0"
MODES = """
# MAXN is the NONE power model to release all constraints
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


def test_l4t() -> None:
    assert parse_l4t(R36) == "36.4.7"
    assert parse_l4t(R32) == "32.5.1"
    assert parse_l4t("") is None


@pytest.mark.parametrize(
    ("l4t", "jetpack", "tensorrt"),
    [
        ("32.7.4", "4.6.4", "8.2.1"),
        ("35.4.1", "5.1.2", "8.5.2"),
        ("35.6.2", "5.1.5", "8.5.2"),
        ("36.3.0", "6.0", "8.6.2"),
        ("36.4.0", "6.1", "10.3.0"),
        ("36.4.7", "6.2.1", "10.3.0"),
        ("36.5", "6.2.2", "10.3.0"),
        ("39.2.1", "7.2.1", "10.16.2"),
    ],
)
def test_jetpack(l4t: str, jetpack: str, tensorrt: str) -> None:
    found = jetpack_of(l4t)
    assert found is not None
    assert (found.jetpack, found.tensorrt) == (jetpack, tensorrt)


def test_an_unknown_release_has_no_jetpack() -> None:
    for l4t in ("32.5.1", "36.2.0", "37.1.0", "40.1.0"):
        assert jetpack_of(l4t) is None


def test_the_image_brings_the_release_s_tensorrt() -> None:
    for release in JETPACKS:
        if release.image and "l4t-tensorrt" in release.image:
            assert release.image.endswith(f":r{release.tensorrt}-runtime")
    assert len({one.l4t for one in JETPACKS}) == len({one.jetpack for one in JETPACKS}) == len(JETPACKS)


def test_power_mode() -> None:
    assert parse_power_mode("pmode:0001", MODES) == "25W"
    assert parse_power_mode("pmode:0002 fmode:quiet", MODES) == "MAXN_SUPER"
    assert parse_power_mode("pmode:0007", MODES) == "mode 7"
    assert parse_power_mode("", MODES) is None


def test_a_whole_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RELEASE", "POWER_STATUS", "POWER_MODES")
    for name, text in zip(names, ("", "pmode:0001\n", MODES), strict=True):
        monkeypatch.setattr(jetson, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    (tmp_path / "compatible").write_text("some,board\0")
    assert this_jetson(tmp_path) is None
    (tmp_path / "RELEASE").write_text(R36)
    assert this_jetson(tmp_path) == Jetson("Jetson", "36.4.7", "6.2.1", "25W", None)
    (tmp_path / "model").write_text(MODEL)
    (tmp_path / "compatible").write_text(COMPATIBLE)
    orin = Gpu("Orin", "sm87")
    assert this_jetson(tmp_path) == Jetson(MODEL[:-1], "36.4.7", "6.2.1", "25W", orin)
    assert parse_chip("nvidia,p2771-0000\0nvidia,tegra186\0") == Gpu("Tegra X2", "sm62")
