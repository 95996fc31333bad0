"""The texts are what drivers and toolkits wrote on real machines, as their owners published them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtq.machine import nvidia
from trtq.machine.nvidia import Gpu, model_of, parse_cuda_json, parse_cuda_text, parse_driver, parse_query

GTX_1660 = (
    "Model: \t\tNVIDIA GeForce GTX 1660 SUPER\nIRQ:   \t\t58\nGPU UUID: \tGPU-4c7d7902-25c4-8456-a90c-1505e82394a2\n"
    "Video BIOS: \t90.16.42.00.bc\nBus Type: \tPCIe\nDMA Size: \t47 bits\nDMA Mask: \t0x7fffffffffff\n"
    "Bus Location: \t0000:07:00.0\nDevice Minor: \t0\nGPU Excluded:\tNo\n"
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.76  Mon Sep 12 19:21:56 UTC 2022\n"
            "GCC version:  gcc version 7.5.0 (Ubuntu 7.5.0-3ubuntu1~18.04)\n",
            "515.76",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (dvs-builder@U16)  "
            "Tue May 20 2025\n",
            "575.57.08",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build", "580.65.06"),
        ("", None),
    ],
)
def test_driver(text: str, version: str | None) -> None:
    assert parse_driver(text) == version


def test_gpus_listed_in_the_driver_s_files(tmp_path: Path) -> None:
    assert nvidia.listed_gpus(tmp_path / "gpus") == ()
    for place, text in (("0000:08:00.0", "nothing of use"), ("0000:07:00.0", GTX_1660)):
        folder = tmp_path / "gpus" / place
        folder.mkdir(parents=True)
        (folder / "information").write_text(text)
    assert nvidia.listed_gpus(tmp_path / "gpus") == (Gpu("NVIDIA GeForce GTX 1660 SUPER"),)
    assert model_of("IRQ: 3\n") is None


def test_gpus_that_nvidia_smi_lists() -> None:
    text = "NVIDIA H100 80GB HBM3, 9.0, 81559\nNVIDIA GB10, 12.1, [N/A]\nNVIDIA GeForce RTX 3080 Ti, 8.6, 12288\n"
    assert parse_query(text) == (
        Gpu("NVIDIA H100 80GB HBM3", "sm90", 81559),
        Gpu("NVIDIA GB10", "sm121"),
        Gpu("NVIDIA GeForce RTX 3080 Ti", "sm86", 12288),
    )
    assert parse_query("No devices were found\n") == ()
    assert parse_query("Old, [Not Supported], 2048\n") == (Gpu("Old", None, 2048),)


def _tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_driver_that_cannot_be_asked_lists_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (Gpu("NVIDIA L4"),)
    monkeypatch.setattr(nvidia, "listed_gpus", lambda: listed)
    _tool(tmp_path, monkeypatch, "echo NVIDIA L4, 8.9, 23034")
    assert nvidia.asked_gpus() == (Gpu("NVIDIA L4", "sm89", 23034),)
    _tool(tmp_path, monkeypatch, "echo Failed to initialize NVML: Driver/library version mismatch; exit 18")
    assert nvidia.asked_gpus() == listed
    monkeypatch.setattr(nvidia, "QUERY_TIMEOUT_S", 0.2)
    _tool(tmp_path, monkeypatch, "exec sleep 5")
    assert nvidia.asked_gpus() == listed
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert nvidia.asked_gpus() == listed


def test_cuda_toolkit(tmp_path: Path) -> None:
    kit = '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.20241114"}'
    assert parse_cuda_json(kit + ', "cuda_cudart" : {"name" : "CUDA Runtime", "version" : "12.6.77"}}') == "12.6.77"
    assert parse_cuda_json('{ "cuda" : { "name" : "CUDA SDK", "version" : "12.2.140" } }') == "12.2.140"
    for text in ("", "[]", "{}", '{"cuda": 3}', "[" * 100_000):
        assert parse_cuda_json(text) is None
    assert parse_cuda_text("CUDA Version 10.2.300\n") == "10.2.300"
    assert nvidia.cuda_version(tmp_path) is None
    (tmp_path / "version.txt").write_text("CUDA Version 10.0.130\n")
    assert nvidia.cuda_version(tmp_path) == "10.0.130"
