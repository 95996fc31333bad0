"""Clocks: texts in the forms that NVIDIA's tools print, and what readings tell of throttling."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from trtq.machine import gpu_clocks
from trtq.machine.clocks import Reading, Watch, parse_mhz, parse_stat, throttling
from trtq.machine.gpu_clocks import GpuReading, locked, parse_devfreq, parse_smi, parse_tegrastats, reasons_of

# Lines of tegrastats in the forms of JetPack 6 (Orin Nano), JetPack 5 (AGX Orin) and JetPack 4 (Nano).
ORIN_NANO = (
    "12-27-2023 14:19:21 RAM 2448/7620MB (lfb 3x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,off] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 42%@[611] NVDEC off cpu@45.187C soc2@43.968C gpu@46.156C tj@46.156C VDD_IN 4879mW/4879mW"
)
AGX_ORIN = (
    "RAM 4722/30536MB (lfb 5790x4MB) SWAP 0/15268MB CPU [4%@729,0%@729] EMC_FREQ 1%@2133 GR3D_FREQ 0%@305 "
    "CPU@46.5C GPU@42.2C tj@47.1C VDD_GPU_SOC 2402mW/2402mW"
)
NANO = "RAM 1903/3964MB CPU [25%@1479] EMC_FREQ 4%@1600 GR3D_FREQ 99%@921 PLL@38C CPU@40C GPU@38C POM_5V_IN 4180/4180"


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        (
            ORIN_NANO,
            {
                "gpu_sm_mhz": 611, "gpu_memory_mhz": 2133, "gpu_temperature_c": 46.156, "board_temperature_c": 46.156,
                "board_power_w": 4.879,
            },
        ),
        (AGX_ORIN, {"gpu_sm_mhz": 305, "gpu_memory_mhz": 2133, "gpu_temperature_c": 42.2, "board_temperature_c": 47.1}),
        (NANO, {"gpu_sm_mhz": 921, "gpu_memory_mhz": 1600, "gpu_temperature_c": 38, "board_power_w": 4.18}),
    ],
)  # fmt: skip
def test_tegrastats(line: str, figures: Mapping[str, float]) -> None:
    assert parse_tegrastats(line) == GpuReading(figures)
    assert parse_tegrastats("tegrastats: command not found") is None


def test_nvidia_smi() -> None:
    found = parse_smi("1980, 2619, 35, 120.55, 0x0000000000000024\n")
    wanted = {"gpu_sm_mhz": 1980.0, "gpu_memory_mhz": 2619.0, "gpu_temperature_c": 35.0, "gpu_power_w": 120.55}
    assert found == GpuReading(wanted, ("power cap", "software thermal slowdown"))
    assert parse_smi("1300, [N/A], 50, [N/A], [N/A]") == GpuReading({"gpu_sm_mhz": 1300.0, "gpu_temperature_c": 50.0})
    assert parse_smi("No devices were found") is None


def test_idle_and_application_clocks_are_no_throttling() -> None:
    assert reasons_of(0x1 | 0x2 | 0x10) == () and reasons_of(0x48) == ("hardware slowdown", "hardware thermal slowdown")


def test_a_jetson_s_own_files() -> None:
    texts = {"cur_freq": "1300500000\n", "min_freq": "1300500000\n", "max_freq": "1300500000\n", "oc1_event_cnt": "3\n"}
    assert parse_devfreq(texts) == GpuReading({"gpu_sm_mhz": 1300.5, "gpu_slowdowns": 3.0})
    assert locked(texts) is True and locked({**texts, "min_freq": "306000000"}) is False and locked({}) is None
    assert parse_devfreq({}) is None


def test_the_processor_s_files() -> None:
    assert parse_mhz("processor : 0\ncpu MHz\t\t: 2000.0\nprocessor : 1\ncpu MHz\t\t: 3000.0\n") == 3000
    assert parse_mhz("processor : 0\nBogoMIPS : 62.50\n") is None
    assert parse_stat("cpu  10 20 30 40 5 6 7 8 90 100\ncpu0 1 2 3 4 5 6 7 8\n") == (126, 8)
    assert parse_stat("") is None


def readings(*figures: Mapping[str, float], reasons: tuple[str, ...] = ()) -> list[Reading]:
    return [Reading(float(place), one, reasons if place == 1 else ()) for place, one in enumerate(figures)]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (readings({}, {}, {}, reasons=("power cap",)), "throttled: the GPU reports power cap"),
        (readings({"cpu_throttles": 4}, {}, {"cpu_throttles": 6}), "the processor slowed down 2 times"),
        (readings({"gpu_slowdowns": 0}, {}, {"gpu_slowdowns": 1}), "the GPU slowed down 1 times"),
        (
            readings({}, {"gpu_sm_mhz": 1300.0}, {"gpu_sm_mhz": 918.0}, {}),
            "the GPU's clock fell from 1300 to 918 MHz",
        ),
        (readings({"cpu_ticks": 0.0, "steal_ticks": 0.0}, {"cpu_ticks": 100, "steal_ticks": 5}), "took 5 %"),
        (readings({"load_average": 3.5}, {}, {}), "load average 3.5 on 4 cores"),
    ],
)
def test_signs_of_throttling_are_said(found: list[Reading], words: str) -> None:
    (sentence,) = throttling(found, 4)
    assert words in sentence


def test_a_quiet_machine_gives_no_sentence() -> None:
    # At rest, before and after, clocks are low.
    at_rest, busy = {"cpu_mhz": 800.0, "load_average": 0.4}, {"cpu_mhz": 3000.0}
    assert throttling(readings(at_rest, busy, {"cpu_mhz": 2950.0}, at_rest), 4) == ()
    assert throttling([], 4) == ()


def test_a_watch_reads_this_machine() -> None:
    watch = Watch(gpu=False)
    for at_rest in (True, False, True):
        watch.read(at_rest=at_rest)
    assert [one.at_s for one in watch.readings] == sorted(one.at_s for one in watch.readings)
    assert watch.readings[0].figures["load_average"] >= 0
    told = {"cpu_mhz": "the processor's clock", "cpu_temperature_c": "its temperature"}
    for name, word in told.items():
        assert (name in watch.readings[0].figures) != (word in watch.unreadable)
    assert ("cpu_mhz" in watch.summary()) == ("cpu_mhz" in watch.readings[0].figures)


class NvmlError(Exception):
    pass


@pytest.mark.parametrize(
    "name", ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"]
)
def test_nvml_s_reasons_are_asked_by_both_of_their_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of NVML's functions older packages lack the new name, and drivers of CUDA 14 the old one."""

    def refused(device: object) -> int:
        raise NvmlError("deprecated")

    answers: dict[str, Any] = {"nvmlDeviceGetCurrentClocksThrottleReasons": refused, name: lambda device: 0x60}
    nvml = SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetClockInfo=lambda device, kind: {1: 1980, 2: 2619}[kind],
        nvmlDeviceGetTemperature=lambda device, sensor: 35,
        nvmlDeviceGetPowerUsage=lambda device: 120_500,
        **answers,
    )
    monkeypatch.setattr(gpu_clocks, "pynvml", nvml)
    clock = gpu_clocks.gpu_clock()
    assert clock is not None and clock.source == "NVML" and clock.cheap
    figures = {"gpu_sm_mhz": 1980, "gpu_memory_mhz": 2619, "gpu_temperature_c": 35, "gpu_power_w": 120.5}
    assert clock.read() == GpuReading(figures, ("software thermal slowdown", "hardware thermal slowdown"))
