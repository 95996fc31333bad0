"""Clocks, temperature and throttling of the GPU: NVML through nvidia-ml-py, else nvidia-smi, else a Jetson's own files.

Not run on a GPU yet: the forms that are read here are those of NVIDIA's manuals and public logs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtq.machine.nvidia import text_of

try:
    import pynvml
except Exception:  # the package may be there and NVIDIA's library not
    pynvml = None

DEVFREQ = Path("/sys/class/devfreq")
HWMON = Path("/sys/class/hwmon")
QUERY = (
    "nvidia-smi", "--id=0", "--format=csv,noheader,nounits",
    "--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active",
)  # fmt: skip
QUERIED = ("gpu_sm_mhz", "gpu_memory_mhz", "gpu_temperature_c", "gpu_power_w")
TIMEOUT_S = 10.0
TEGRASTATS = "tegrastats"
# Bits of NVML's clocks event reasons that mean less speed than was asked for. Source: nvml.h.
REASONS = {
    0x04: "power cap", 0x08: "hardware slowdown", 0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown",
    0x80: "power brake", 0x200: "board limit", 0x400: "reliability",
}  # fmt: skip
JETSON_GPUS = re.compile(r"gpu|gp10b|gv11b|ga10b")
HZ_PER_MHZ = 1_000_000


@dataclass(frozen=True)
class GpuReading:
    """What a GPU is doing now: figures by name, and why it is slower than it was asked to be."""

    figures: Mapping[str, float]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuClock:
    """A way to read the GPU's clocks; `cheap`: it starts no program, so it may be read in the midst of a benchmark."""

    source: str
    cheap: bool
    read: Callable[[], GpuReading | None]


def gpu_clock() -> GpuClock | None:
    """Return the best way to read the GPU's clocks on this machine, None where there is none."""
    if pynvml is not None and _nvml_reading() is not None:
        return GpuClock("NVML", True, _nvml_reading)
    if parse_devfreq(_devfreq_texts()) is not None:
        return GpuClock("devfreq", True, lambda: parse_devfreq(_devfreq_texts()))
    if shutil.which(QUERY[0]) and _smi_reading() is not None:
        return GpuClock("nvidia-smi", False, _smi_reading)
    if shutil.which(TEGRASTATS) and _tegrastats_reading() is not None:
        return GpuClock(TEGRASTATS, False, _tegrastats_reading)
    return None


def parse_smi(text: str) -> GpuReading | None:
    """Read a line of `nvidia-smi`: `1980, 2619, 35, 120.5, 0x0000000000000004`; `[N/A]` is left out."""
    fields = [field.strip() for field in text.strip().split(",")]
    if len(fields) != len(QUERIED) + 1:
        return None
    figures = {name: float(field) for name, field in zip(QUERIED, fields, strict=False) if _is_number(field)}
    mask = int(fields[-1], 16) if re.fullmatch(r"0x[0-9a-fA-F]+", fields[-1]) else 0
    return GpuReading(figures, reasons_of(mask))


def parse_tegrastats(line: str) -> GpuReading | None:
    """Read a line of tegrastats, JetPack 4 to 7: GPU load and clock, temperatures, power at the input."""
    patterns = {
        "gpu_sm_mhz": r"GR3D_FREQ \d+%@\[?(\d+)",
        "gpu_memory_mhz": r"EMC_FREQ \d+%@(\d+)",
        "gpu_temperature_c": r"(?:gpu|GPU)@([\d.]+)C",
        "board_temperature_c": r"tj@([\d.]+)C",
    }
    figures = {name: float(found[1]) for name, pattern in patterns.items() if (found := re.search(pattern, line))}
    power = re.search(r"(?:VDD_IN|POM_5V_IN|VIN) (\d+)(?:mW)?/", line)
    if power:
        figures["board_power_w"] = int(power[1]) / 1000
    return GpuReading(figures) if figures else None


def parse_devfreq(texts: Mapping[str, str]) -> GpuReading | None:
    """Read a Jetson's GPU clock in Hz from `cur_freq`, and the over-current events that have slowed it so far."""
    current = texts.get("cur_freq", "").strip()
    if not current.isdecimal():
        return None
    figures = {"gpu_sm_mhz": int(current) / HZ_PER_MHZ}
    events = [int(text) for name, text in texts.items() if name.startswith("oc") and text.strip().isdecimal()]
    return GpuReading({**figures, "gpu_slowdowns": float(sum(events))} if events else figures)


def locked(texts: Mapping[str, str]) -> bool | None:
    """Tell whether a Jetson's GPU clock is fixed, as `jetson_clocks` does; None where its files do not tell."""
    low, high = (texts.get(name, "").strip() for name in ("min_freq", "max_freq"))
    return low == high if low and high else None


def jetson_locked() -> bool | None:
    """Tell whether this Jetson's GPU clock is fixed; None elsewhere."""
    return locked(_devfreq_texts())


def reasons_of(mask: int) -> tuple[str, ...]:
    """Return the words for NVML's bits that mean throttling."""
    return tuple(word for bit, word in REASONS.items() if mask & bit)


def _nvml_reading() -> GpuReading | None:
    try:
        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        calls: dict[str, Callable[[], Any]] = {
            "gpu_sm_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            "gpu_memory_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM),
            "gpu_temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
            "gpu_power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(device) / 1000,
        }
        figures = {name: value for name, call in calls.items() if (value := _told(call)) is not None}
        # The second is the first's old name, which CUDA 13 deprecates and older packages and drivers have alone.
        masks = (
            _told(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)),
            _told(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)),
        )
    except pynvml.NVMLError:
        return None
    return GpuReading(figures, reasons_of(int(next((mask for mask in masks if mask is not None), 0))))


def _told(call: Callable[[], Any]) -> float | None:
    """Return what NVML answers, None for what this GPU, its driver or nvidia-ml-py does not know."""
    try:
        return float(call())
    except (pynvml.NVMLError, AttributeError):
        return None


def _smi_reading() -> GpuReading | None:
    try:
        ran = subprocess.run(QUERY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_smi(ran.stdout) if ran.returncode == 0 else None


def _tegrastats_reading() -> GpuReading | None:
    try:
        with subprocess.Popen((TEGRASTATS, "--interval", "100"), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
    except OSError:
        return None
    return parse_tegrastats(line)


def _devfreq_texts() -> dict[str, str]:
    folder = next((one for one in sorted(DEVFREQ.glob("*")) if JETSON_GPUS.search(one.name)), None)
    if folder is None:
        return {}
    texts = {name: text_of(folder / name) for name in ("cur_freq", "min_freq", "max_freq")}
    return texts | {path.name: text_of(path) for path in sorted(HWMON.glob("hwmon*/oc*_event_cnt"))}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(?:\.\d+)?", text) is not None
