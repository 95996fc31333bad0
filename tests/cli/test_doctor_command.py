from __future__ import annotations

import json
import subprocess
import sys

import pytest

from trtq.backends import BUILDERS


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trtq", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_table_of_every_back_end_and_what_it_lacks() -> None:
    done = doctor()
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("Python", "driver", "ONNX Runtime", "explicit", *BUILDERS):
        assert word in done.stdout
    document = json.loads(doctor("--json").stdout)
    for one in document["abilities"]:
        for name, install in zip(one["missing"], one["install"], strict=True):
            assert install == document["parts"][name]["install"]
            assert install in done.stdout


def test_a_health_check_fails_with_one_sentence() -> None:
    parts = json.loads(doctor("--json").stdout)["parts"]
    for name in ("gpu", "onnxruntime", "dot"):
        part = parts[name]
        done = doctor("--require", name)
        assert done.returncode == (3 if part["problem"] else 0), name
        assert done.stdout == ""
        assert done.stderr.count("\n") == bool(part["problem"])
    assert doctor("--require", "tensorboard").returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--require"]])
def test_usage(arguments: list[str]) -> None:
    assert "Traceback" not in doctor(*arguments).stderr
