from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trtq.machine import cpu_facts, machine

REPOSITORY = Path(__file__).resolve().parents[2]
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp\nModel\t\t: Board: 2\n"


def test_this_machine() -> None:
    found = machine()
    assert found.cpu
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.python == platform.python_version()
    assert dict(found.packages)["onnx"].count(".") >= 1
    assert found == machine()
    assert json.loads(json.dumps(found.to_json()))["packages"] == dict(found.packages)


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="compares with /proc/meminfo")
def test_memory_is_that_of_the_kernel() -> None:
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert abs(machine().memory_mib - total_kib / 1024) <= 1


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="compares with /proc/cpuinfo")
def test_instruction_sets_are_the_processor_s() -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert set(machine().instruction_sets) <= words
    assert ("avx2" in words) == ("avx2" in machine().instruction_sets)


def test_arm_facts_take_the_first_core() -> None:
    facts = cpu_facts(ARM)
    assert facts["Features"].split() == ["fp", "asimd", "asimddp"]
    assert facts["Model"] == "Board: 2"


def test_imports_no_extra() -> None:
    script = (
        "import sys; from trtq.machine import machine; machine().to_json(); "
        "print([name for name in ('torch', 'onnx', 'numpy', 'onnxruntime', 'tensorrt_rtx') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
